//! The mesh of all nodes.

use serde_json::Value;

use super::{TWO, session, sessions, set_password};
use crate::agent::eventually;
use crate::lab::up;

/// The mesh with a password.
fn mesh(key: &str) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{nodeMeshPassword: {{secretKeyRef: {{name: bgp, key: {key}}}}}, nodeMeshMaxRestartTime: 60s}}
"
    )
}

#[test]
fn nodes_of_the_mesh_meet_when_they_have_the_same_password_and_not_otherwise() {
    let lab = up(TWO);
    assert_eq!(session(&lab, "Established")["name"], "Mesh_172_16_6_249");
    for (host, other) in [("node1", "one"), ("fabric", "another")] {
        set_password(&lab, host, "same", "shared");
        set_password(&lab, host, "other", other);
    }
    lab.apply(&mesh("same")).unwrap();
    let again = || sessions(&lab)[0]["counters"]["established"].as_u64().unwrap();
    assert!(eventually(again, |times| *times > 1) > 1, "the session has to come up with the password");
    session(&lab, "Established");

    lab.apply(&mesh("other")).unwrap();
    let last = || sessions(&lab)[0].clone();
    // Why it failed last is told of a session that is up too.
    let unanswered = |session: &Value| {
        let why = session["lastError"].as_str();
        session["state"] != "Established" && why.is_some_and(|why| why.contains("no answer"))
    };
    let last = eventually(last, unanswered);
    assert!(unanswered(&last), "{last:#?}");

    // A Secret of which this node has no entry costs the session, and says so.
    lab.apply(&mesh("none")).unwrap();
    let told = || lab.calicoctl("node1", &["node", "status"], "").unwrap();
    let problem = "the Secret bgp has no usable entry none";
    let status = eventually(told, |status| status.replace('\n', " ").contains(problem));
    assert!(status.contains(problem), "{status}");
    assert_eq!(sessions(&lab).len(), 0);

    lab.apply(&mesh("same")).unwrap();
    session(&lab, "Established");
    lab.down().unwrap();
}
