//! Every bound of the protocol, with its reason. What a user may choose is in
//! [`crate::Config`]; these are the walls around it.

use crate::time::Millis;

/// The most that a result, output or log may put into a record: records go
/// whole to each holder with each closing, and sled must not see values over
/// 64 KiB, so three of these fit below that.
pub const INLINE_BYTES: usize = 16 * 1024;
/// A payload travels with its spec in one message.
pub const PAYLOAD_BYTES: usize = 1024 * 1024;
/// Metadata is for people and small programs.
pub const METADATA_BYTES: usize = 64 * 1024;
/// The most that one attempt may leave in one blob.
pub const BLOB_BYTES: u64 = 64 * 1024 * 1024;
/// A blob travels in pieces of this size, each checked by its length and the
/// whole by its hash.
pub const BLOB_CHUNK_BYTES: usize = 1024 * 1024;
/// One message between nodes: a payload, its envelope, and room.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// A list in one message: the rest is room for what goes with it. Longer lists
/// come in several, or end there.
pub const ANSWER_BYTES: usize = MESSAGE_BYTES / 2;
/// A gossiped message: every node forwards it.
pub const GOSSIP_BYTES: usize = 64 * 1024;
/// Items that one call makes tasks of at once, so that it stays within a second:
/// those of a smaller array, or of a `for_each`.
pub const ITEMS: usize = 10_000;
/// Items of one array. Above [`ITEMS`] they wait in the array's own record.
pub const ARRAY_ITEMS: usize = 100_000;
/// That record's payload: it travels in one message, with room for the rest.
pub const ARRAY_BYTES: usize = 3 * 1024 * 1024;
/// Items of one such array that have begun and not ended: more than the slots
/// of most meshes. Where there are more slots, it is twice as many as these.
pub const ARRAY_AT_ONCE: usize = 1_000;
/// Tags of one task.
pub const TAGS: usize = 32;
/// Any short text: tag, label, type, capability, fairness key.
pub const TEXT_BYTES: usize = 256;
/// A reason or an error that a person reads.
pub const REASON_BYTES: usize = 4096;
/// Tasks that one task may wait for.
pub const DEPENDENCIES: usize = 1_000;
/// Capabilities, labels or named resources of one worker or requirement.
pub const ATTRIBUTES: usize = 64;
/// Limits of one mesh: each is looked at with each submission.
pub const LIMITS: usize = 64;
/// Ways to meet one task's requirements: each is tried for each worker.
pub const ALTERNATIVES: usize = 8;
/// Workers of one node: they all travel in its advert.
pub const WORKERS: usize = 64;
/// Slots of one worker.
pub const SLOTS: u32 = 10_000;
/// Retries of one task.
pub const RETRIES: u32 = 1_000;
/// Holders of one record, old and new together.
pub const HOLDERS: usize = 16;
/// Items in one page of a list.
pub const PAGE: usize = 1_000;
/// How far an `offset` reaches: every node sends all before it, in one
/// message. A cursor has no such bound.
pub const OFFSET: usize = 5_000;
/// The longest that a request waits for a task to end.
pub const WAIT_MS: u64 = 45_000;
/// Members of a mesh that a node knows: a beat costs each of them.
pub const MEMBERS: usize = 1_000;
/// Nodes that are gone for ever by an operator's word: every hello carries them.
pub const FORGOTTEN: usize = 1_000;
/// Requests of others that a node answers at once; more are refused with
/// `resource_exhausted`.
pub const PENDING_REQUESTS: usize = 20_000;
/// Tail of a running program's log that its owner keeps for `task_status`.
pub const LOG_TAIL_BYTES: usize = 8 * 1024;
/// Addresses kept of one peer.
pub const ADDRESSES: usize = 16;
/// Names of forgotten tasks, 8 bytes each, that keep a copy from the past from
/// bringing one of them back.
pub const TOMBSTONES: usize = 500_000;
/// Of one resource, in its own unit (thousandths, MiB): so much that the
/// needs of 10,000 slots still add up without overflow.
pub const AMOUNT: u64 = 1_000_000_000_000_000;
/// Task types in one announcement, which must fit into a gossiped message.
pub const ANNOUNCED: usize = 200;
/// Lines of one explanation: one for each worker of a large mesh.
pub const EXPLAINED: usize = 10_000;
/// Workers in one answer.
pub const WORKER_VIEWS: usize = 10_000;
/// Tokens that are issued and not revoked: for people and programs, not for
/// each of their calls.
pub const TOKENS: usize = 1_000;
/// Entries in the register of tokens: those, and the revoked ones until they
/// would have expired. All of them fit into one message.
pub const REGISTER: usize = 4_000;
/// Minutes in one answer's history.
pub const MINUTES: usize = 1_440;
/// Steps of one workflow: each may become a record.
pub const STEPS: usize = 10_000;
/// The name of a step: it is part of an id, maybe of several levels.
pub const STEP_ID_BYTES: usize = 64;
/// Workflows that are steps of workflows that are steps: what a person can
/// still follow, and a stack frame each.
pub const NESTED_WORKFLOWS: usize = 4;
/// Steps that one input may set going: more wait for the next, so that nothing
/// else waits long.
pub const RELEASES: usize = 1_000;
/// Steps named in one answer as under way.
pub const CURRENT_STEPS: usize = 100;
/// Ticks of a schedule that are caught up with after a time in which nobody
/// could fire them: the latest of them.
pub const TICKS: usize = 1_000;
/// A tick is missed if nobody could fire it within this time: longer than it
/// takes to replace an owner that died just then.
pub const TICK_GRACE: Millis = Millis(60_000);
/// A workflow's definition as JSON, given or made from a template: it travels
/// with its record, as a payload does.
pub const DEFINITION_BYTES: usize = PAYLOAD_BYTES;
/// A template as JSON: it is written by hand.
pub const TEMPLATE_BYTES: usize = 256 * 1024;
/// Parameters of one template.
pub const PARAMETERS: usize = 256;
/// Levels of arrays and objects in a template, in a parameter's value and in
/// what is made of them: readers of JSON stop at 128, and a definition travels
/// inside of other JSON.
pub const NESTING: usize = 64;
/// Includes of one rendered template, those of included ones counted: without
/// it, few small files could ask for more steps than there are atoms.
pub const INCLUDES: usize = 256;
/// Templates within each other.
pub const INCLUDE_DEPTH: usize = 16;
/// All that is written while a template is rendered, values of parameters for
/// included ones counted: these double with each level if they want to.
pub const RENDERED_BYTES: usize = 8 * DEFINITION_BYTES;
/// The text that a pattern is tried on, whose time is the product of both.
pub const MATCHED_BYTES: usize = 4096;
/// Templates of one node: it tells all others of each.
pub const TEMPLATES: usize = 256;
