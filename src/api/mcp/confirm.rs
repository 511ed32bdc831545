//! A person's yes to what can't be undone: by elicitation, in the form of each
//! era, or by `confirm: true` where the client can't ask.

use crate::ops::{Code, Failure};
use rmcp::RoleServer;
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema, InputRequest,
    InputRequiredResult, InputResponses, ProtocolVersion,
};
use rmcp::service::{ElicitationMode, RequestContext};
use std::time::Duration;

/// A person's answer must come within the call.
const PERSON: Duration = Duration::from_secs(40);
/// The name of the one thing that a person is ever asked.
const CONFIRM: &str = "confirm";

/// Whether a person said yes; what to ask them, where they were not asked yet.
pub(super) async fn confirmed(
    question: &str,
    responses: Option<&InputResponses>,
    context: &RequestContext<RoleServer>,
) -> Result<Option<InputRequiredResult>, Failure> {
    if let Some(response) = responses.and_then(|r| r.get(CONFIRM)) {
        let answer = serde_json::from_value::<ElicitResult>(response.clone());
        return yes(answer.ok()).map(|()| None);
    }
    let params = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question.to_owned(),
        requested_schema: ElicitationSchema::builder().required_bool(CONFIRM).build_unchecked(),
    };
    if modern(context) {
        let form = context.client_capabilities().and_then(|c| c.elicitation);
        if form.is_none_or(|e| e.form.is_none() && e.url.is_some()) {
            return Err(unasked());
        }
        let ask = InputRequest::Elicitation(ElicitRequest::new(params));
        return Ok(Some(InputRequiredResult::from_input_requests([(CONFIRM.to_owned(), ask)].into())));
    }
    if !context.peer.supported_elicitation_modes().contains(&ElicitationMode::Form) {
        return Err(unasked());
    }
    let answer = context.peer.create_elicitation_with_timeout(params, Some(PERSON)).await;
    yes(answer.ok()).map(|()| None)
}

/// Whether this request is of an era without sessions.
fn modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|v| v.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}

fn yes(answer: Option<ElicitResult>) -> Result<(), Failure> {
    let Some(answer) = answer else { return Err(unasked()) };
    let ticked = answer.content.is_some_and(|content| content[CONFIRM] == true);
    if answer.action == ElicitationAction::Accept && ticked {
        return Ok(());
    }
    Err(Failure::new(Code::ConfirmationRequired, "the user did not say yes; nothing was changed"))
}

pub(super) fn unasked() -> Failure {
    Failure::new(Code::ConfirmationRequired, "this can't be undone; call again with confirm: true. Nothing was changed")
}
