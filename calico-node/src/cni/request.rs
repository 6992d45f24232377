//! What the runtime asks, as it stands in the environment.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use calico_model::{InterfaceName, ParseError};

use super::CniError;

/// What is asked of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Attach a container to the network.
    Add(Container, PathBuf),
    /// Detach it. The container's namespace may be gone, and then the runtime may not name it.
    Del(Container, Option<PathBuf>),
    /// Say whether it is attached as it was.
    Check(Container, PathBuf),
    /// Clean up after containers that are no more.
    Gc,
    /// Say whether an ADD could succeed.
    Status,
    /// Say which versions are spoken.
    Version,
}

/// The container that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The runtime's name of the container.
    pub id: ContainerId,
    /// The interface inside the container.
    pub interface: InterfaceName,
    /// The extra arguments.
    pub args: Args,
}

/// The runtime's name of a container: a letter or digit, then letters, digits, `_`, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let sound = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(inner);
        if sound {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                text,
                "a container ID: a letter or digit, then letters, digits, '_', '.' and '-'",
            ))
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `CNI_ARGS`: pairs `KEY=value` with `;` between them. Keys that nobody asks for are let be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Returns the value of a key that is there and not empty.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, value)| k == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

impl FromStr for Args {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').ok_or_else(|| CniError::Environment {
                variable: "CNI_ARGS",
                problem: format!("has {word:?}, which is not KEY=value"),
            })?;
            Ok((key.to_owned(), value.to_owned()))
        };
        text.split(';').filter(|word| !word.is_empty()).map(pair).collect::<Result<_, _>>().map(Self)
    }
}

impl Request {
    /// Reads the request through `var`.
    ///
    /// # Errors
    /// When a variable that the command needs is missing or cannot be used; it is named.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let vars = Vars { var: &var };
        let command = vars.needed("CNI_COMMAND")?;
        match command.as_str() {
            "ADD" => Ok(Self::Add(vars.container()?, vars.needed("CNI_NETNS")?.into())),
            "DEL" => Ok(Self::Del(vars.container()?, vars.optional("CNI_NETNS").map(PathBuf::from))),
            "CHECK" => Ok(Self::Check(vars.container()?, vars.needed("CNI_NETNS")?.into())),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            _ => Err(CniError::Environment {
                variable: "CNI_COMMAND",
                problem: format!("is {command:?}, but must be ADD, DEL, CHECK, GC, STATUS or VERSION"),
            }),
        }
    }

    /// Returns the command's name.
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Self::Add(..) => "ADD",
            Self::Del(..) => "DEL",
            Self::Check(..) => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

struct Vars<'a> {
    var: &'a dyn Fn(&str) -> Option<String>,
}

impl Vars<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        (self.var)(name).filter(|value| !value.is_empty())
    }

    fn needed(&self, variable: &'static str) -> Result<String, CniError> {
        let missing = || CniError::Environment { variable, problem: "is not set".to_owned() };
        self.optional(variable).ok_or_else(missing)
    }

    fn container(&self) -> Result<Container, CniError> {
        let fault = |variable, error: ParseError| CniError::Environment {
            variable,
            problem: format!("is {:?}, but must be {}", error.value, error.expected),
        };
        let id = self.needed("CNI_CONTAINERID")?.parse().map_err(|error| fault("CNI_CONTAINERID", error))?;
        let interface = self.needed("CNI_IFNAME")?.parse().map_err(|error| fault("CNI_IFNAME", error))?;
        let args = self.optional("CNI_ARGS").unwrap_or_default().parse()?;
        Ok(Container { id, interface, args })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Request, String> {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Request::from_vars(var).map_err(|error| error.to_string())
    }

    #[test]
    fn an_add_needs_a_container_a_namespace_and_an_interface() {
        let mut vars = vec![
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/var/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web;IP="),
        ];
        let Ok(Request::Add(container, netns)) = read(&vars) else { panic!("refused") };
        assert_eq!((container.id.as_str(), netns.to_str()), ("c1", Some("/var/run/netns/x")));
        assert_eq!(container.args.value("K8S_POD_NAME"), Some("web"));
        assert_eq!(container.args.value("IP"), None);
        vars.remove(2);
        assert_eq!(read(&vars).unwrap_err(), "the environment variable CNI_NETNS is not set");
        vars[0].1 = "DEL";
        assert!(matches!(read(&vars), Ok(Request::Del(_, None))));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (vars, expected) in [
            (vec![], "the environment variable CNI_COMMAND is not set"),
            (
                vec![("CNI_COMMAND", "PING")],
                "the environment variable CNI_COMMAND is \"PING\", but must be ADD, DEL, CHECK, GC, STATUS or VERSION",
            ),
            (
                vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "-x")],
                "the environment variable CNI_CONTAINERID is \"-x\", but must be a container ID: a letter or digit, then letters, digits, '_', '.' and '-'",
            ),
            (
                vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "x"), ("CNI_IFNAME", "a/b")],
                "the environment variable CNI_IFNAME is \"a/b\", but must be an interface name: 1 to 15 letters, digits, '_', '.' or '-'",
            ),
            (
                vec![
                    ("CNI_COMMAND", "DEL"),
                    ("CNI_CONTAINERID", "x"),
                    ("CNI_IFNAME", "eth0"),
                    ("CNI_ARGS", "A=1;B"),
                ],
                "the environment variable CNI_ARGS has \"B\", which is not KEY=value",
            ),
        ] {
            assert_eq!(read(&vars).unwrap_err(), expected);
        }
    }
}
