//! Services and their shadows, judged together: a shadow must be there, and cut its stream the same way.
//!
//! A service is never taken from its players for its mirror. If its last good version will do it is in force instead;
//! else it is in force as it stands, without its mirror. A mirror of a mirror isn't a question: what is mirrored are
//! clients' sessions alone.

use std::sync::Arc;

use super::Compiled;
use crate::config::FieldError;
use crate::routing::document::Document;
use crate::routing::documents::{Documents, LastGood};
use crate::routing::table::{Service, Table};

pub fn settle(compiled: &mut Compiled, documents: &Documents, last_good: &LastGood) {
    // Each round takes a version with a mirror out of force, and each service has two at most.
    while let Some((service, mut fault)) = first_fault(&compiled.table) {
        let key: Arc<str> = format!("services/{}", service.name).into();
        let entry = documents.get(&key);
        let is_newest = entry.and_then(|entry| entry.parsed.as_ref().ok());
        let is_newest = is_newest.is_some_and(|good| good.document == Document::Service(service.clone()));
        let older =
            last_good.get(&key).filter(|old| is_newest && old.document != Document::Service(service.clone()));
        if is_newest {
            let since = entry.map_or(0, |entry| entry.revision);
            if older.is_none() {
                fault.expected.push_str("; until then it is in force without its mirror");
            }
            compiled.refuse(&key, &fault, since, true);
        }
        match older {
            Some(old) => compiled.take(&key, old),
            None => {
                let bare = Service { mirror: None, ..Service::clone(&service) };
                compiled.table.services.insert(service.name.to_string(), Arc::new(bare));
            }
        }
    }
}

fn first_fault(table: &Table) -> Option<(Arc<Service>, FieldError)> {
    table.services.values().find_map(|service| Some((service.clone(), fault(service, table)?)))
}

fn fault(service: &Service, table: &Table) -> Option<FieldError> {
    let mirror = service.mirror.as_ref()?;
    let expected = match table.services.get(&*mirror.service) {
        None => "a service that has a valid services/ document".to_owned(),
        Some(shadow) if shadow.framing != service.framing => {
            format!("a service whose framing is the same as that of services/{}", service.name)
        }
        Some(_) => return None,
    };
    Some(FieldError::new("mirror.service", &mirror.service, expected))
}
