//! Text to tree.
//!
//! A descent over bytes. It recurses once for each open parenthesis and nowhere else, and parentheses are counted, so
//! its stack is bounded; each byte is looked at a bounded number of times.

use std::fmt;

use super::{Expr, SelectorError};

/// The longest selector that is read, in bytes, and the longest canonical text a selector may have.
///
/// Written by hand they stay below 1,024; those derived from Kubernetes policies with long value lists need more.
pub const MAX_LENGTH: usize = 256 * 1024;

/// How deep parentheses may nest, and how deep `&&` and `||` may alternate.
pub const MAX_NESTING: usize = 100;

/// The longest label, in bytes.
pub const MAX_KEY: usize = 512;

/// How much of an overlong input an error keeps, in characters.
const KEPT: usize = 80;

pub(super) fn parse(input: &str) -> Result<Expr, SelectorError> {
    if input.len() > MAX_LENGTH {
        return Err(too_long(input, input.len()));
    }
    let mut parser = Parser { input, at: 0, open: 0 };
    parser.space();
    if parser.at == input.len() {
        return Ok(Expr::All);
    }
    let (expr, _) = parser.or()?;
    if parser.at < input.len() {
        return Err(parser.unexpected("\"&&\", \"||\" or the end"));
    }
    // Spaces and double quotes that the canonical text adds at most double the input.
    if input.len() > MAX_LENGTH / 2 {
        let length = printed_length(&expr);
        if length > MAX_LENGTH {
            return Err(too_long(input, length));
        }
    }
    Ok(expr)
}

/// Returns `key` when it is a label.
pub(super) fn check_key(key: &str) -> Result<Box<str>, SelectorError> {
    match key.char_indices().find(|&(_, c)| !u8::try_from(c).is_ok_and(is_key_byte)) {
        Some((at, c)) => Err(SelectorError::new(
            key,
            at,
            format!("a label cannot hold {c:?}; it is made of {KEY_LETTERS}"),
        )),
        None if key.is_empty() => Err(SelectorError::new(key, 0, "a label cannot be empty")),
        None if key.len() > MAX_KEY => Err(SelectorError::new(key, MAX_KEY, long_key())),
        None => Ok(key.into()),
    }
}

/// Returns `value` when some kind of quotes can hold it.
pub(super) fn check_value(value: &str) -> Result<Box<str>, SelectorError> {
    let first = value.find(['"', '\'']);
    let other = first.and_then(|at| value.find(if value.as_bytes()[at] == b'"' { '\'' } else { '"' }));
    match other {
        Some(at) => Err(SelectorError::new(
            value,
            at,
            "a value cannot hold both kinds of quotes, as there are no escapes",
        )),
        None => Ok(value.into()),
    }
}

const KEY_LETTERS: &str = "letters, digits, \"_\", \".\", \"/\" and \"-\"";

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
}

fn long_key() -> String {
    format!("a label is at most {MAX_KEY} bytes long")
}

fn too_long(input: &str, length: usize) -> SelectorError {
    let end = input.char_indices().nth(KEPT).map_or(input.len(), |(at, _)| at);
    let message = format!(
        "a selector is at most {MAX_LENGTH} bytes long and this one has {length}; split the policy or use fewer values"
    );
    SelectorError::new(&input[..end], 0, message)
}

fn printed_length(expr: &Expr) -> usize {
    struct Count(usize);
    impl fmt::Write for Count {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            self.0 += s.len();
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting never fails.
    let _ = fmt::write(&mut count, format_args!("{expr}"));
    count.0
}

struct Parser<'a> {
    input: &'a str,
    /// The offset of the next byte to read, always on a character boundary.
    at: usize,
    /// How many parentheses are open.
    open: usize,
}

/// A tree, and how many `And` and `Or` lie on its longest path: the parentheses its canonical text nests.
type Nested = (Expr, usize);

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Nested, SelectorError> {
        self.chain("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Nested, SelectorError> {
        self.chain("&&", Self::unary, Expr::And)
    }

    fn chain(
        &mut self,
        operator: &str,
        operand: fn(&mut Self) -> Result<Nested, SelectorError>,
        node: fn(Box<[Expr]>) -> Expr,
    ) -> Result<Nested, SelectorError> {
        let start = self.at;
        let (first, mut height) = operand(self)?;
        if !self.take(operator) {
            return Ok((first, height));
        }
        let mut terms = vec![first];
        loop {
            let (term, h) = operand(self)?;
            height = height.max(h);
            terms.push(term);
            if !self.take(operator) {
                break;
            }
        }
        if height == MAX_NESTING {
            return Err(self.too_deep(start));
        }
        Ok((node(terms.into_boxed_slice()), height + 1))
    }

    fn unary(&mut self) -> Result<Nested, SelectorError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let (expr, height) = self.atom()?;
        Ok((if negated { Expr::not(expr) } else { expr }, height))
    }

    fn atom(&mut self) -> Result<Nested, SelectorError> {
        let start = self.at;
        if self.take("(") {
            return self.parenthesised(start);
        }
        let label = self.word();
        if label.is_empty() {
            return Err(self.unexpected("a label, \"has(\", \"all()\", \"!\" or \"(\""));
        }
        let expr = match label {
            "has" if self.take("(") => {
                let key = self.key()?;
                self.close()?;
                Expr::Has(key)
            }
            "all" if self.take("(") => {
                self.close()?;
                Expr::All
            }
            "global" if self.take("(") => {
                self.close()?;
                Expr::Global
            }
            _ => {
                self.at = start;
                let key = self.key()?;
                self.test(key)?
            }
        };
        Ok((expr, 0))
    }

    fn parenthesised(&mut self, start: usize) -> Result<Nested, SelectorError> {
        if self.open == MAX_NESTING {
            return Err(self.too_deep(start));
        }
        self.open += 1;
        let nested = self.or()?;
        self.open -= 1;
        if !self.take(")") {
            return Err(self.unexpected("\"&&\", \"||\" or \")\""));
        }
        Ok(nested)
    }

    /// Reads what follows a label. Only here are words operators.
    fn test(&mut self, key: Box<str>) -> Result<Expr, SelectorError> {
        if self.take("==") {
            return Ok(Expr::Equals { key, value: self.text("\"==\"")? });
        }
        if self.take("!=") {
            return Ok(Expr::NotEquals { key, value: self.text("\"!=\"")? });
        }
        let start = self.at;
        let word = self.word();
        self.space();
        match word {
            "in" => Ok(Expr::In { key, values: self.set("\"in\"")? }),
            "notin" => Ok(Expr::NotIn { key, values: self.set("\"notin\"")? }),
            "not" if self.second("in") => Ok(Expr::NotIn { key, values: self.set("\"not in\"")? }),
            "contains" => Ok(Expr::Contains { key, part: self.text("\"contains\"")? }),
            "startswith" => Ok(Expr::StartsWith { key, prefix: self.text("\"startswith\"")? }),
            "starts" if self.second("with") => {
                Ok(Expr::StartsWith { key, prefix: self.text("\"starts with\"")? })
            }
            "endswith" => Ok(Expr::EndsWith { key, suffix: self.text("\"endswith\"")? }),
            "ends" if self.second("with") => Ok(Expr::EndsWith { key, suffix: self.text("\"ends with\"")? }),
            _ => {
                self.at = start;
                Err(self.unexpected(
                    "a test after the label: \"==\", \"!=\", \"in\", \"not in\", \"contains\", \"starts with\" or \"ends with\"",
                ))
            }
        }
    }

    /// Consumes the second word of an operator, when it is there.
    fn second(&mut self, expected: &str) -> bool {
        let start = self.at;
        let found = self.word() == expected;
        if found {
            self.space();
        } else {
            self.at = start;
        }
        found
    }

    fn set(&mut self, after: &str) -> Result<Box<[Box<str>]>, SelectorError> {
        if !self.take("{") {
            return Err(self.unexpected(&format!("\"{{\" after {after}")));
        }
        let mut values = Vec::new();
        while !self.take("}") {
            values.push(self.text("\"{\" or \",\"")?);
            if self.take("}") {
                break;
            }
            if !self.take(",") {
                return Err(self.unexpected("\",\" or \"}\""));
            }
        }
        Ok(Expr::set(values))
    }

    fn text(&mut self, after: &str) -> Result<Box<str>, SelectorError> {
        let rest = self.rest();
        let quote = match rest.as_bytes().first() {
            Some(b'"') => '"',
            Some(b'\'') => '\'',
            _ => return Err(self.unexpected(&format!("a value in quotes after {after}"))),
        };
        let Some(length) = rest[1..].find(quote) else {
            return Err(self.error(self.at, format!("the value that begins here has no closing {quote}")));
        };
        self.at += length + 2;
        self.space();
        Ok(rest[1..=length].into())
    }

    fn key(&mut self) -> Result<Box<str>, SelectorError> {
        let start = self.at;
        let key = self.word();
        if key.is_empty() {
            return Err(self.unexpected("a label"));
        }
        if key.len() > MAX_KEY {
            return Err(self.error(start, long_key()));
        }
        self.space();
        Ok(key.into())
    }

    fn close(&mut self) -> Result<(), SelectorError> {
        if self.take(")") { Ok(()) } else { Err(self.unexpected("\")\"")) }
    }

    /// Consumes a run of label characters, and not the space behind it.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|b| !is_key_byte(b)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Consumes `token` and the space behind it, when it is next.
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.space();
        }
        found
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.bytes().position(|b| b != b' ' && b != b'\t').unwrap_or(rest.len());
    }

    fn rest(&self) -> &'a str {
        &self.input[self.at..]
    }

    fn unexpected(&self, expected: &str) -> SelectorError {
        let found = match self.rest().chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        self.error(self.at, format!("expected {expected}, found {found}"))
    }

    fn too_deep(&self, at: usize) -> SelectorError {
        self.error(at, format!("expressions nest more than {MAX_NESTING} deep"))
    }

    fn error(&self, at: usize, message: impl Into<Box<str>>) -> SelectorError {
        SelectorError::new(self.input, at, message)
    }
}
