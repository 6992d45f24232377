//! Numbers that follow from a seed, and the requests that follow from them.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice of its own for each of several uses of a seed.
    pub(crate) fn for_use(seed: u64, usage: u64) -> Self {
        let mut dice = Self(seed ^ usage.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(dice.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What a client asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Assign,
    AssignGiven,
    Release,
    ReleaseByHandle,
    /// Looks whether a handle still has its addresses.
    Verify,
    GiveBackBlocks,
    RemoveHost,
    EnsureBlock,
    ClaimBlock,
}

/// One request. It does not depend on what came of earlier ones; only what `pick` picks from does.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) action: Action,
    pub(crate) node: String,
    pub(crate) count: usize,
    pub(crate) pick: usize,
}

/// How many hosts there are: fewer than clients, so that several processes of one host meet.
const NODES: u64 = 6;

impl Request {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let action = match dice.below(1000) {
            0..400 => Action::Assign,
            400..430 => Action::AssignGiven,
            430..680 => Action::Release,
            680..890 => Action::ReleaseByHandle,
            890..940 => Action::Verify,
            940..960 => Action::GiveBackBlocks,
            960..965 => Action::RemoveHost,
            965..990 => Action::EnsureBlock,
            _ => Action::ClaimBlock,
        };
        let node = format!("n{}", dice.below(NODES));
        let count = usize::try_from(1 + dice.below(3)).unwrap_or(1);
        let pick = usize::try_from(dice.below(1 << 16)).unwrap_or(0);
        Self { action, node, count, pick }
    }
}
