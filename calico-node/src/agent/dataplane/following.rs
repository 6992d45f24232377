//! Watches of the kernel: others' changes of routes and links, and of our rules. One that fails is opened again a little later.

use super::*;

/// How long a watch that failed is left alone: one that fails each time at once is not to have everything read in a circle.
const REOPEN: Duration = Duration::from_secs(10);

/// How often the kernel is read at most since other tables changed, which matters only to routes that wait: where somebody changes
/// them all the time, a node is not to do nothing else.
const OTHER_TABLES: Duration = Duration::from_secs(1);

impl Dataplane {
    /// Reports whether what the kernel told may make a difference now. Where it is to wait, a pass is made when it is time.
    pub(super) fn concerns(&mut self, event: &Event, now: Instant) -> bool {
        match event {
            Event::Changed(subjects) if *subjects == [Subject::OtherTables].into() => {
                let due = self.read + OTHER_TABLES;
                if self.for_other_tables && now < due {
                    self.read_again = Some(due);
                    self.tries.insert(due);
                }
                self.for_other_tables && due <= now
            }
            Event::Changed(_) | Event::Overrun | _ => true,
        }
    }

    /// Returns how often more changed than the kernel could tell.
    pub(in super::super) fn overruns(&self) -> u64 {
        self.former_overruns + self.watch.as_ref().map_or(0, Watch::overruns)
    }

    /// Returns what of the kernel cannot be followed, one sentence each.
    pub(in super::super) fn unfollowed(&self) -> impl Iterator<Item = String> {
        self.unwatched.iter().chain(&self.rules_unwatched).cloned()
    }

    pub(super) fn cannot_follow(&mut self, error: &std::io::Error) -> Event {
        self.former_overruns = self.overruns();
        self.watch = None;
        self.stay_unwatched(error);
        Event::Overrun
    }

    pub(super) fn stay_unwatched(&mut self, error: &dyn std::error::Error) {
        self.reopened = crate::clock::now() + REOPEN;
        self.tries.insert(self.reopened);
        let why = with_causes(error);
        self.unwatched = Some(format!(
            "the kernel's changes cannot be followed; everything is read again until they can: {why}"
        ));
    }

    pub(super) fn rules_changed(&mut self, change: Result<nft::Foreign, String>) {
        match change {
            Ok(change) => {
                tracing::warn!(?change, "somebody else changed our rules; they are put right");
                self.filter.changed(Some(change));
            }
            Err(error) => {
                self.filter.changed(None);
                self.rules_watch = None;
                self.cannot_follow_rules(&error);
            }
        }
    }

    fn cannot_follow_rules(&mut self, error: &str) {
        self.rules_reopened = crate::clock::now() + REOPEN;
        self.tries.insert(self.rules_reopened);
        self.rules_unwatched = Some(format!(
            "others' changes of our rules cannot be followed; they are read again every so often until they can: {error}"
        ));
    }

    /// Follows others' changes of our rules again, once it is time for another try.
    pub(super) fn follow_rules(&mut self, now: Instant) {
        if self.rules_watch.is_some() || now < self.rules_reopened {
            return;
        }
        match self.filter.watch() {
            Ok(watch) => {
                self.rules_watch = Some(follow(watch));
                self.rules_unwatched = None;
                // First it is listened, then read: nothing is missed between.
                self.filter.changed(None);
            }
            Err(error) => self.cannot_follow_rules(&with_causes(&error)),
        }
    }
}

/// Follows others' changes of our rules on a thread of its own, which ends when the socket fails or nobody listens. It tells a few
/// changes ahead; what it has no room for stays with the kernel, which says when it had to leave something out.
pub(super) fn follow(mut watch: nft::Watch) -> mpsc::Receiver<Result<nft::Foreign, String>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let change = watch.wait().map_err(|error| with_causes(&error));
            let ended = change.is_err();
            if sender.blocking_send(change).is_err() || ended {
                return;
            }
        }
    });
    receiver
}
