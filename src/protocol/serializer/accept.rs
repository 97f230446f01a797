//! [`AcceptContent`]: what a worker decodes.

use super::{AUTH_REASON, DATA, NAMES, PICKLE, PICKLE_REASON, TRUSTED};
use crate::{Error, ErrorKind, Result};

/// The content types that a worker decodes: the setting `accept_content`, by default JSON alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptContent {
    content_types: Vec<String>,
    /// `auth` signs under the type of raw data, so raw data is then taken for signed.
    signed: bool,
}

impl Default for AcceptContent {
    fn default() -> Self {
        AcceptContent { content_types: vec!["application/json".into()], signed: false }
    }
}

impl AcceptContent {
    /// What these names of serializers and MIME types accept (kombu/serialization.py `prepare_accept_content`). An
    /// unknown name is an error of kind [`ErrorKind::Configuration`].
    pub fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut accept = AcceptContent { content_types: Vec::new(), signed: false };
        for name in names {
            let name = name.as_ref();
            accept.signed |= name == "auth";
            accept.content_types.push(content_type_of(name)?.to_owned());
        }
        Ok(accept)
    }

    /// Whether content of this type is accepted.
    pub fn accepts(&self, content_type: &str) -> bool {
        TRUSTED.contains(&content_type) || self.content_types.iter().any(|accepted| accepted == content_type)
    }

    /// Refuses what is not accepted, in Kombu's words (kombu/serialization.py `_for_untrusted_content`), and what is
    /// but cannot be decoded here.
    pub(super) fn check(&self, content_type: &str) -> Result<()> {
        let name = NAMES.iter().find(|(_, known)| *known == content_type).map_or(content_type, |(name, _)| name);
        if !self.accepts(content_type) {
            let message = format!("Refusing to deserialize untrusted content of type {name} ({content_type})");
            return Err(Error::new(ErrorKind::Refused, message));
        }
        let reason = match content_type {
            PICKLE => PICKLE_REASON,
            DATA if self.signed => AUTH_REASON,
            _ => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Refused,
            format!("Refusing to deserialize content of type {name} ({content_type}): {reason}"),
        ))
    }
}

/// The MIME type that a name stands for; a MIME type stands for itself.
fn content_type_of(name: &str) -> Result<&str> {
    if name.contains('/') {
        return Ok(name);
    }
    match NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, content_type)) => Ok(content_type),
        None => Err(Error::new(ErrorKind::Configuration, format!("no encoder/decoder installed for {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_taken() {
        let accept = AcceptContent::new(["msgpack", "application/x-yaml"]).unwrap();
        for (content_type, expected) in [
            ("application/x-msgpack", true),
            ("application/x-yaml", true),
            ("application/json", false),
            ("application/data", true),
            ("application/text", true),
            (PICKLE, false),
        ] {
            assert_eq!(accept.accepts(content_type), expected, "{content_type}");
        }
        assert_eq!(AcceptContent::new(["xml"]).unwrap_err().kind(), ErrorKind::Configuration);
        assert_eq!(AcceptContent::new(["json"]).unwrap(), AcceptContent::default());
    }

    #[test]
    fn refusals_are_in_kombus_words() {
        let check = |names: &[&str], content_type, expected: &str| {
            let error = AcceptContent::new(names).unwrap().check(content_type).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Refused, expected));
        };
        let pickle = "Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)";
        check(&["json"], PICKLE, pickle);
        check(&["json"], "x/y", "Refusing to deserialize untrusted content of type x/y (x/y)");
        let accepted = AcceptContent::new(["pickle"]).unwrap().check(PICKLE).unwrap_err();
        assert!(accepted.to_string().contains("only Python"), "{accepted}");
        assert_eq!(AcceptContent::new(["auth"]).unwrap().check(DATA).unwrap_err().kind(), ErrorKind::Refused);
        assert!(AcceptContent::new(["json"]).unwrap().check(DATA).is_ok());
    }
}
