//! W3C trace context: a client's `_meta.traceparent` names the trace and the
//! span that a call belongs to; both are recorded on the span of the call.

use rmcp::model::RequestMetaObject;
use taskmesh_core::limits;
use tracing::Span;

/// Records the client's trace on `span`, where it sent a well-formed one, and
/// returns that.
pub(super) fn record<'a>(meta: &'a RequestMetaObject, span: &Span) -> Option<&'a str> {
    let sent = meta.get_traceparent()?;
    let (trace, parent) = parts(sent)?;
    span.record("trace_id", trace).record("parent_id", parent);
    Some(sent).filter(|sent| sent.len() <= limits::TEXT_BYTES)
}

/// Trace id and parent id of `00-<32 hex>-<16 hex>-<2 hex>`; a later version may
/// go on after that. Anything else is ignored, as the recommendation asks.
fn parts(traceparent: &str) -> Option<(&str, &str)> {
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut fields = traceparent.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let ended = version != "00" || fields.next().is_none();
    let well_formed = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    let none = |id: &str| id.bytes().all(|b| b == b'0');
    (ended && well_formed && !none(trace) && !none(parent)).then_some((trace, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_is_taken() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7");
        assert_eq!(parts(&format!("00-{trace}-{parent}-01")), Some((trace, parent)));
        assert_eq!(parts(&format!("01-{trace}-{parent}-01-more")), Some((trace, parent)));
        let (no_trace, no_parent) = ("0".repeat(32), "0".repeat(16));
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{no_trace}-{parent}-01"),
            format!("00-{trace}-{no_parent}-01"),
            format!("00-{trace}é-{parent}-01"),
        ] {
            assert_eq!(parts(&bad), None, "{bad}");
        }
    }
}
