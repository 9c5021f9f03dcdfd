//! From a valid push to a published report: admission, the order of windows, and the threads that do the work.
//!
//! Guarantees: an accepted batch is merged exactly once; a refused one leaves nothing behind; reports of a layer are
//! judged in the order its windows closed. Must not: open sockets, or read a clock (`now` is an argument).
//!
//! `inbox` admits, `layer` keeps what is known of one layer, `line` computes, `work` runs in the threads.

pub mod budget;
mod control;
mod inbox;
mod layer;
mod line;
mod open_window;
mod persist;
mod policy;
mod queue;
mod ranges;
mod registry;
mod reports;
mod solve;
pub mod solver_room;
mod start;
mod work;

pub use control::Reports;
pub use inbox::{Accepted, Decode, Inbox, Limits, Origin, RawBatch};
pub use line::{Content, Judging, Line, Outcome};
pub use policy::Policy;
pub use registry::{OpenView, check_name};
pub use solve::exact_bytes;
pub use solver_room::SolverRoom;
pub use start::Parts;
pub use work::Queues;
