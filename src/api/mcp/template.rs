//! Templates that a submission names: their definitions come in their place
//! before anything else is looked at, so that all that follows is about steps.
//!
//! A template is taken from this node's folder. One that is not there is brought
//! from a node that has it, and so is what it includes.

use super::access::defect;
use crate::driver::Handle;
use crate::ops::value::Object;
use crate::ops::{Code, Failure, Op as _, Operation, mismatch, workflow};
use crate::templates::{Shelf, handed_over};
use std::sync::Arc;
use taskmesh_core::template::{self, Catalogue, Problem, Template, TemplateError};
use taskmesh_core::{Query, Refusal, Reply, Request, limits};

/// `arguments` with steps where templates are named.
///
/// # Errors
/// There is no such template, or it does not fit; nothing was asked of the queue.
pub(super) async fn expanded(
    node: &Handle,
    shelf: &Shelf,
    operation: &'static Operation,
    arguments: Object,
) -> Result<Object, Failure> {
    if operation.name != workflow::WorkflowSubmit::NAME || !template::mentioned(&arguments) {
        return Ok(arguments);
    }
    let shelf = shelf.clone();
    let mut catalogue = blocking(move || shelf.catalogue()).await?;
    // Each turn but the last brings one.
    for _ in 0..=limits::INCLUDES {
        let (of, given) = (catalogue.clone(), arguments.clone());
        let wrong = match blocking(move || template::submission(&of, &given)).await? {
            Ok(made) => return Ok(made),
            Err(wrong) => wrong,
        };
        let Problem::NoTemplate { id, range, .. } = &wrong.problem else { return Err(wrong.into()) };
        let brought = bring(node, id, range, &wrong).await?;
        let mut more = Catalogue::clone(&catalogue);
        // What came is what was missing: it can't be there.
        more.insert(Arc::new(brought)).map_err(|_| defect())?;
        catalogue = Arc::new(more);
    }
    let problem = format!("it takes more than {} templates of other nodes; put some into one", limits::INCLUDES);
    Err(Failure::new(Code::PayloadTooLarge, problem))
}

/// From another node.
async fn bring(node: &Handle, id: &str, range: &str, missing: &TemplateError) -> Result<Template, Failure> {
    let query = Query::Template { id: id.into(), range: range.into() };
    let reply = match node.ask(Request::Query(query)).await {
        Ok(reply) => reply,
        Err(Refusal::NotFound { .. }) => return Err(missing.clone().into()),
        Err(refusal) => return Err(refusal.into()),
    };
    let Reply::Template(wanted) = reply else { return Err(mismatch(workflow::WorkflowSubmit::NAME)) };
    let name = format!("the template {id} of another node");
    let Some(text) = node.find_blob(wanted.hash, 0, limits::TEMPLATE_BYTES).await else {
        return Err(Failure::new(Code::Unavailable, format!("{name} went away meanwhile; try again")));
    };
    let read = blocking(move || handed_over(&wanted, &text)).await?;
    read.map_err(|problem| Failure::new(Code::Unavailable, format!("{name} {problem}")))
}

/// Files are read, and definitions of a MiB written, where that may take a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| defect())
}
