//! One role of a batch: its views, or moments that the trainer computed.

use kernels::rows::Rows;

use super::pushed::PushedMoments;
use super::role::Role;

/// The numbers of one role.
#[derive(Clone, Debug)]
pub enum Payload {
    /// V aligned views of N rows each: row i of every view is the same sample.
    Views(Vec<Rows>),
    /// Moments that the trainer computed.
    Moments(Box<PushedMoments>),
}

/// One role of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// The role of these numbers in the layer pushed to.
    pub role: Role,
    /// Its numbers.
    pub payload: Payload,
    /// The view number of each array, from 1: `teacher2` alone is of view 2.
    pub(crate) views_sent: Vec<usize>,
}

impl Part {
    /// d.
    pub fn dim(&self) -> usize {
        match &self.payload {
            Payload::Views(views) => views[0].dim(),
            Payload::Moments(pushed) => pushed.moments.dim(),
        }
    }

    /// Pooled rows: N V.
    pub fn rows(&self) -> u64 {
        match &self.payload {
            Payload::Views(views) => (views[0].len() * views.len()) as u64,
            Payload::Moments(pushed) => pushed.moments.rows(),
        }
    }

    /// V; one for moments.
    pub fn views(&self) -> usize {
        match &self.payload {
            Payload::Views(views) => views.len(),
            Payload::Moments(_) => 1,
        }
    }
}
