//! One role of a batch: its views, or the moments that the trainer took itself.

use kernels::rows::Rows;

use super::pushed::PushedMoments;
use super::role::Role;

/// The numbers of one role.
#[derive(Clone, Debug)]
pub enum Payload {
    /// V views of N rows each, aligned: row i of every view is the same sample.
    Views(Vec<Rows>),
    /// Moments that the trainer took itself.
    Moments(Box<PushedMoments>),
}

/// One role of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which layer of the push it belongs to.
    pub role: Role,
    /// Its numbers.
    pub payload: Payload,
    /// Which view each array is of, from 1: `teacher2` alone is of the second.
    pub views_sent: Vec<usize>,
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
