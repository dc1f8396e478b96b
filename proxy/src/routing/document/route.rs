//! `routes/<route>`: which clients of a listener go to which service, and in which shares by version.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::{MAX_WEIGHT, version};
use super::{
    fault, key,
    strict::{shorten, shown},
    within,
};
use crate::config::FieldError;
use crate::routing::address::NAME_PATTERN;
use crate::routing::table::{Prefer, Route, RouteMatch};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// Name of a listener in the proxies' files; proxies without it ignore the route.
    #[schemars(length(min = 1, max = 64), regex(pattern = NAME_PATTERN))]
    pub listener: String,
    /// The service that its clients go to. There must be a valid `services/` document of that name.
    #[schemars(length(min = 1, max = 64), regex(pattern = NAME_PATTERN))]
    pub service: String,
    /// Version -> share of the sessions, each from 0 to 1000000, at least one above 0. A version that isn't listed gets
    /// none. Absent: all versions by their backends' weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = share_schema()))]
    pub versions: Option<BTreeMap<String, u32>>,
    /// Which of the eligible backends come first.
    #[serde(default)]
    pub prefer: RawPrefer,
    /// Only clients that ask for this server name (TLS): an exact name, or `*.suffix`. The most exact route wins. Absent:
    /// any client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Only clients of this network, as `10.0.0.0/8`. The longest prefix wins. Absent: from anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawPrefer {
    /// The backend beside the proxy.
    #[default]
    Local,
    /// Backends of the proxy's own zone.
    Zone,
    /// All are alike.
    None,
}

/// What a version may be given, as JSON Schema.
fn share_schema() -> serde_json::Value {
    serde_json::json!({ "type": "integer", "minimum": 0, "maximum": MAX_WEIGHT })
}

impl From<RawPrefer> for Prefer {
    fn from(raw: RawPrefer) -> Self {
        match raw {
            RawPrefer::Local => Self::Local,
            RawPrefer::Zone => Self::Zone,
            RawPrefer::None => Self::None,
        }
    }
}

impl RawRoute {
    pub fn check(self, name: Arc<str>) -> Result<Route, FieldError> {
        Ok(Route {
            name,
            listener: key::name("listener", &self.listener)?,
            service: key::name("service", &self.service)?,
            versions: self.versions.map(shares).transpose()?.unwrap_or_default(),
            prefer: self.prefer.into(),
            matches: RouteMatch {
                sni: self.sni.map(|name| server_name(&name)).transpose()?,
                source: self.source.map(|text| network(&text)).transpose()?,
            },
        })
    }
}

fn shares(raw: BTreeMap<String, u32>) -> Result<BTreeMap<Arc<str>, u32>, FieldError> {
    if raw.values().all(|&share| share == 0) {
        let found = serde_json::to_string(&raw).unwrap_or_default();
        return Err(fault("versions", shorten(&found), "at least one share above 0: these shares sum to 0"));
    }
    let checked = |(name, share): (String, u32)| {
        let field = format!("versions.{}", shorten(&name));
        Ok((version(&field, name)?.into(), within(&field, share, 0..=MAX_WEIGHT)?))
    };
    raw.into_iter().map(checked).collect()
}

/// Server names are compared in lower case, with no dot at the end.
fn server_name(text: &str) -> Result<Arc<str>, FieldError> {
    let name = text.to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() <= 253 && labels.split('.').all(label_is_fine) {
        return Ok(name.into());
    }
    Err(fault("sni", shown(text), "a server name as play.example.com, or *.example.com"))
}

fn network(text: &str) -> Result<(IpAddr, u8), FieldError> {
    let wrong = |expected: &str| fault("source", shown(text), expected);
    let shape = "a network as 10.0.0.0/8 or 2001:db8::/32";
    let (address, length) = text.split_once('/').ok_or_else(|| wrong(shape))?;
    let address: IpAddr = address.parse().map_err(|_| wrong(shape))?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length.parse().ok().filter(|&length| length <= bits).ok_or_else(|| wrong(shape))?;
    if address.to_canonical() != address {
        return Err(wrong("an IPv4 network written as IPv4: clients are matched by their IPv4 address"));
    }
    let base = mask(address, length);
    if base != address {
        return Err(wrong(&format!("no bits behind the prefix: {base}/{length}")));
    }
    Ok((address, length))
}

/// The network's own address: `address` with everything behind `length` bits cleared.
pub fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & keep).into())
        }
        IpAddr::V6(address) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & keep).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Key};
    use super::*;

    fn parse(text: &str) -> Result<Arc<Route>, FieldError> {
        match Document::parse(&Key::parse("routes/public").unwrap(), text.as_bytes())? {
            Document::Route(route) => Ok(route),
            other => panic!("not a route: {other:?}"),
        }
    }

    fn field(more: &str) -> String {
        parse(&format!(r#"{{"listener": "game", "service": "arena", {more}}}"#)).unwrap_err().field
    }

    #[test]
    fn a_bad_field_is_named() {
        assert_eq!(field(r#""versions": {"1.4": 0, "1.5": 0}"#), "versions");
        assert_eq!(field(r#""versions": {}"#), "versions");
        assert_eq!(field(r#""versions": {"1.4": 2000000}"#), "versions.1.4");
        assert_eq!(field(r#""prefer": "nearest""#), "prefer");
        assert_eq!(field(r#""sni": "a..b""#), "sni");
        assert_eq!(field(r#""sni": "*.*.b""#), "sni");
        for source in ["10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "ten/8"] {
            assert_eq!(field(&format!(r#""source": "{source}""#)), "source", "{source}");
        }
    }

    #[test]
    fn names_are_lowered_and_networks_kept() {
        let route = parse(
            r#"{"listener": "game", "service": "arena", "sni": "*.Play.Example", "source": "2001:db8::/32"}"#,
        )
        .unwrap();
        assert_eq!(route.matches.sni.as_deref(), Some("*.play.example"));
        assert_eq!(route.matches.source, Some(("2001:db8::".parse().unwrap(), 32)));
        assert_eq!(route.prefer, Prefer::Local);
        assert!(route.versions.is_empty());
    }
}
