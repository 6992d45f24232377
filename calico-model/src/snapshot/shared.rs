//! What many objects have alike, held once: pods of one deployment have the same labels, those of one namespace the
//! same profiles, and there may be a hundred thousand.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::label::Labels;
use crate::resource::Resource;

/// The label sets and names of a snapshot's objects.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    labels: Pool<Labels>,
    names: Pool<Arc<str>>,
}

impl Shared {
    /// Makes the parts of a resource one with their equals.
    pub(super) fn share(&mut self, resource: &mut Resource) {
        let metadata = resource.metadata_mut();
        self.labels.share(&mut metadata.labels);
        if let Some(namespace) = &mut metadata.namespace {
            self.names.share(namespace.text_mut());
        }
        if let Resource::WorkloadEndpoint(endpoint) = resource {
            self.names.share(endpoint.spec.node.text_mut());
            for profile in &mut endpoint.spec.profiles {
                self.names.share(profile.text_mut());
            }
        }
    }
}

/// What is shared is no part of what is known.
impl PartialEq for Shared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug, Clone, Default)]
struct Pool<T> {
    values: HashSet<T>,
    /// At this many values those that nobody has any more are let go.
    limit: usize,
}

impl<T: Counted> Pool<T> {
    fn share(&mut self, value: &mut T) {
        match self.values.get(value) {
            Some(known) => value.clone_from(known),
            None => {
                self.values.insert(value.clone());
            }
        }
        if self.values.len() > self.limit {
            self.values.retain(Counted::is_shared);
            self.limit = 2 * self.values.len() + 64;
        }
    }
}

/// A value of which a clone is another handle.
trait Counted: Eq + Hash + Clone {
    /// Reports whether there is another handle.
    fn is_shared(&self) -> bool;
}

impl Counted for Labels {
    fn is_shared(&self) -> bool {
        Labels::is_shared(self)
    }
}

impl Counted for Arc<str> {
    fn is_shared(&self) -> bool {
        Arc::strong_count(self) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_become_one_and_those_of_nobody_are_let_go() {
        let mut pool = Pool::default();
        let mut kept = Labels::from([("app", "web")]);
        pool.share(&mut kept);
        for n in 0..1_000 {
            let mut equal = Labels::from([("app", "web")]);
            assert!(!equal.is_shared());
            pool.share(&mut equal);
            assert!(equal.is_shared());
            pool.share(&mut Labels::from([("app", n.to_string())]));
        }
        assert!(pool.values.contains(&kept) && pool.values.len() < 100, "{} sets", pool.values.len());
    }
}
