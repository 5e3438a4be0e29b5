//! Reads selectors from text, one character after the other.
//!
//! Invariant: every error says where it is and what may stand there.

use super::{FieldRequirement, MAX_LENGTH, Requirement, SelectorError};

/// Reads requirements on labels.
pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut reader = Reader::new(text)?;
    let mut requirements = Vec::new();
    reader.skip_spaces();
    if reader.at_end() {
        return Ok(requirements);
    }
    loop {
        requirements.push(label(&mut reader)?);
        if reader.at_end() {
            return Ok(requirements);
        }
        reader.take(",", "`,` or the end")?;
    }
}

fn label(reader: &mut Reader<'_>) -> Result<Requirement, SelectorError> {
    if reader.skip("!") {
        let label = reader.word("a label name")?;
        return Requirement::new(label, "DoesNotExist", &[]);
    }
    let label = reader.word("a label name or `!`")?;
    for (sign, operator) in [("==", "In"), ("=", "In"), ("!=", "NotIn"), (">", "Gt"), ("<", "Lt")] {
        if reader.skip(sign) {
            return Requirement::new(label, operator, &[reader.optional_word().to_owned()]);
        }
    }
    if reader.at_end() || reader.rest().starts_with(',') {
        return Requirement::new(label, "Exists", &[]);
    }
    let before = reader.position;
    let operator = match reader.optional_word() {
        "in" => "In",
        "notin" => "NotIn",
        _ => {
            reader.position = before;
            return Err(reader.expected("`=`, `==`, `!=`, `>`, `<`, `in`, `notin`, `,` or the end"));
        }
    };
    reader.take("(", "`(`")?;
    let mut values = vec![reader.optional_word().to_owned()];
    while !reader.skip(")") {
        reader.take(",", "`,` or `)`")?;
        values.push(reader.optional_word().to_owned());
    }
    values.sort();
    values.dedup();
    Requirement::new(label, operator, &values)
}

/// Reads requirements on fields.
pub(super) fn fields(text: &str) -> Result<Vec<FieldRequirement>, SelectorError> {
    let mut reader = Reader::new(text)?;
    let mut requirements = Vec::new();
    while !reader.at_end() {
        let path = reader.word("a field such as `metadata.name`")?.to_owned();
        let equal = if reader.skip("!=") {
            false
        } else if reader.skip("==") || reader.skip("=") {
            true
        } else {
            return Err(reader.expected("`=`, `==` or `!=`"));
        };
        requirements.push(FieldRequirement { path, equal, value: reader.escaped()? });
        // A comma at the end is allowed, as in Kubernetes.
        if !reader.at_end() {
            reader.take(",", "`,` or the end")?;
        }
    }
    Ok(requirements)
}

struct Reader<'a> {
    text: &'a str,
    /// In bytes, always at a character.
    position: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Result<Self, SelectorError> {
        if text.len() > MAX_LENGTH { Err(SelectorError::Length(text.len())) } else { Ok(Self { text, position: 0 }) }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn at_end(&self) -> bool {
        self.rest().is_empty()
    }

    fn skip_spaces(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes a sign and the spaces behind it, if it stands here.
    fn skip(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.position += sign.len();
            self.skip_spaces();
        }
        found
    }

    fn take(&mut self, sign: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.skip(sign) { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// Takes what stands before the next space or sign, and the spaces behind it; it may be empty.
    fn optional_word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|letter: char| letter.is_whitespace() || "=!(),<>".contains(letter)).unwrap_or(rest.len());
        self.position += end;
        self.skip_spaces();
        rest.get(..end).unwrap_or_default()
    }

    fn word(&mut self, expected: &'static str) -> Result<&'a str, SelectorError> {
        match self.optional_word() {
            "" => Err(self.expected(expected)),
            word => Ok(word),
        }
    }

    /// Takes a field's value up to the next comma.
    fn escaped(&mut self) -> Result<String, SelectorError> {
        let mut value = String::new();
        while let Some(letter) = self.rest().chars().next() {
            match letter {
                ',' => break,
                '=' => return Err(self.expected("a value; write `\\=` for `=`")),
                '\\' => {
                    self.position += 1;
                    match self.rest().chars().next() {
                        Some(taken @ (',' | '=' | '\\')) => value.push(taken),
                        _ => return Err(self.expected("`,`, `=` or `\\` behind `\\`")),
                    }
                    self.position += 1;
                }
                _ => {
                    value.push(letter);
                    self.position += letter.len_utf8();
                }
            }
        }
        Ok(value)
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        let before = self.text.get(..self.position).unwrap_or_default();
        let found = self.rest().chars().next().map_or_else(|| "the end".to_owned(), |letter| format!("`{letter}`"));
        SelectorError::Expected { text: self.text.to_owned(), position: before.chars().count() + 1, expected, found }
    }
}
