//! What is allocated, counted: this binary's allocator is the system's, with a count for each thread.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement; this one passes everything on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static USE: Cell<Use> = const { Cell::new(Use { allocations: 0, bytes: 0, peak: 0 }) };
}

/// What a thread has allocated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// How often.
    pub(crate) allocations: usize,
    /// How much of it is not freed yet, with what glibc adds: a word, and then up to the next 16 bytes.
    pub(crate) bytes: isize,
    /// The most that was not freed yet at any time.
    pub(crate) peak: isize,
}

/// Does the work, and says what it allocated on this thread.
pub(crate) fn used_by<T>(work: impl FnOnce() -> T) -> (T, Use) {
    let before = USE.get();
    USE.set(Use { peak: before.bytes, ..before });
    let done = work();
    let after = USE.get();
    let used = Use {
        allocations: after.allocations - before.allocations,
        bytes: after.bytes - before.bytes,
        peak: after.peak - before.bytes,
    };
    (done, used)
}

struct Counting;

fn note(allocations: usize, bytes: isize) {
    let before = USE.get();
    let now = before.bytes + bytes;
    USE.set(Use { allocations: before.allocations + allocations, bytes: now, peak: before.peak.max(now) });
}

fn chunk(size: usize) -> isize {
    (size + 8).max(24).next_multiple_of(16).cast_signed()
}

// SAFETY: every call is the system allocator's; counting allocates nothing and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, chunk(layout.size()));
        // SAFETY: the caller's promises are the ones that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(0, -chunk(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, chunk(size) - chunk(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}
