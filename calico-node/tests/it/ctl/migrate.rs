//! `calicoctl datastore migrate export` and `import`: from one datastore to another.

use super::Cluster;
use super::explain::shop;

#[test]
fn everything_is_carried_over_and_nothing_else_is_there() {
    let from = shop("migrate-from");
    let unlocked = from.run(&["datastore", "migrate", "export"]);
    assert!(unlocked.code == 1 && unlocked.err.contains("migrate lock"), "{}", unlocked.err);
    from.ok(&["datastore", "migrate", "lock"]);
    let text = from.ok(&["datastore", "migrate", "export"]);

    let to = Cluster::new("migrate-to");
    let file = to.file("export", &text);
    to.ok(&["datastore", "migrate", "import", "-f", &file]);
    to.ok(&["datastore", "migrate", "import", "-f", &file]);
    let exported = to.ok(&["datastore", "migrate", "export"]);
    assert_eq!(exported, text, "locked as it was, and the same");
    to.ok(&["datastore", "migrate", "unlock"]);
    let explained = to.ok(&["explain", "--from", "shop/web", "--to", "shop/db", "--port", "3306"]);
    assert!(explained.contains("In all: allowed"), "{explained}");

    let busy = shop("migrate-busy");
    let refused = busy.run(&["datastore", "migrate", "import", "-f", &file]);
    assert!(refused.code == 1 && refused.err.contains("the datastore is not empty"), "{}", refused.err);
    let junk = to.file("junk", "hello\n");
    let junk = to.run(&["datastore", "migrate", "import", "-f", &junk]);
    assert!(junk.code == 1 && junk.err.contains("this is no export"), "{}", junk.err);
}
