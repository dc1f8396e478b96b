//! `[hooks]`: how alerts come in.

use std::net::SocketAddr;

use super::FieldError;
use super::addresses::Binds;
use super::reader::{Section, parsed};
use super::token::TokenFile;

/// Who may send alerts, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// An address for alerts alone, besides the admin address.
    pub bind: Option<SocketAddr>,
    /// Without it whoever reaches the address may send.
    pub token: Option<TokenFile>,
}

impl Hooks {
    pub(super) fn read(mut section: Section<'_>, binds: &mut Binds) -> Self {
        let bind: Option<SocketAddr> = section.optional("bind", "ip:port", parsed);
        if let Some(bind) = bind {
            binds.take(&section, bind);
        }
        let names_token = section.has("token_file");
        let token = TokenFile::read_key(&mut section);
        if let Some(bind) = bind.filter(|bind| !bind.ip().is_loopback() && !names_token) {
            let expected = "a loopback ip:port, or token_file beside it: who sends alerts drains backends";
            section.refuse(FieldError::new("bind", bind, expected));
        }
        section.finish();
        Self { bind, token }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn parse(hooks: &str, folder: &Path) -> Result<Config, String> {
        let text = format!(
            "[proxy]\nid = \"p\"\n[[listener]]\nname = \"game\"\nbind = \"0.0.0.0:7000\"\n\
             [etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n[hooks]\n{hooks}"
        );
        Config::parse(&text, &folder.join("holdfast.toml")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "secret\n").unwrap();
        let open = parse("bind = \"0.0.0.0:9902\"\n", folder.path()).unwrap_err();
        assert!(
            open.contains("hooks.bind: got 0.0.0.0:9902, expected a loopback ip:port, or token_file"),
            "{open}"
        );
        assert!(parse("bind = \"127.0.0.1:9902\"\n", folder.path()).is_ok());
        let config = parse("bind = \"0.0.0.0:9902\"\ntoken_file = \"token\"\n", folder.path()).unwrap();
        assert_eq!(config.hooks.token.unwrap().token().unwrap(), "secret");
        let taken = parse("bind = \"127.0.0.1:9900\"\n", folder.path()).unwrap_err();
        assert!(taken.contains("an address of its own"), "{taken}");
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (content, file) in [("", "empty"), ("two words\n", "words"), ("a\nb\n", "lines")] {
            std::fs::write(folder.path().join(file), content).unwrap();
            let error = parse(&format!("token_file = {file:?}\n"), folder.path()).unwrap_err();
            assert!(error.contains("hooks.token_file: got ") && error.contains("no token in it"), "{error}");
        }
        assert!(parse("token_file = \"missing\"\n", folder.path()).unwrap_err().contains("hooks.token_file"));
    }
}
