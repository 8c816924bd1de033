//! Keys of the audit log that come from secrets: each is the file that the audit service is told of, and no other pod has any.

use std::collections::BTreeMap;

use crate::chart::{cases, render, text};

#[test]
fn the_audit_service_is_given_the_keys_that_are_named_and_nobody_else_any() {
    for case in cases() {
        let rendered = render(&case);
        let expected: &[(&str, &str, &str)] = if case == "users" {
            &[
                ("FTE_AUDIT_KEY_FILE", "log.key", "fte-audit-log"),
                ("FTE_AUDIT_NEXT_KEY_FILE", "log.next.key", "fte-audit-next"),
                ("FTE_AUDIT_MASTER_KEY_FILE", "master.key", "fte-audit-master"),
            ]
        } else {
            &[]
        };
        for object in rendered.values().filter(|object| object.template().is_some()) {
            let pod = &object.template().unwrap()["spec"];
            let container = &pod["containers"][0];
            let mut named: BTreeMap<&str, &str> = BTreeMap::new();
            for entry in container["env"].as_array().into_iter().flatten() {
                if text(entry, "name").starts_with("FTE_AUDIT_") {
                    named.insert(text(entry, "name"), text(entry, "value"));
                }
            }
            let is_audit = object.id() == "StatefulSet/fte-audit";
            let ours: &[(&str, &str, &str)] = if is_audit { expected } else { &[] };
            let files: BTreeMap<&str, String> =
                ours.iter().map(|(variable, file, _)| (*variable, format!("/etc/fte-audit/{file}"))).collect();
            assert_eq!(named, files.iter().map(|(variable, file)| (*variable, file.as_str())).collect(), "{case}: {}", object.id());

            let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "audit-keys");
            assert_eq!(volume.is_some(), !ours.is_empty(), "{case}: {}", object.id());
            let Some(volume) = volume else { continue };
            let mount = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "audit-keys").unwrap();
            assert_eq!((text(mount, "mountPath"), &mount["readOnly"]), ("/etc/fte-audit", &true.into()));
            // The service warns of a master key that everybody can read; its group is the pod's alone.
            assert_eq!(volume["projected"]["defaultMode"].as_u64(), Some(0o440));
            let sources = volume["projected"]["sources"].as_array().unwrap().iter();
            let found: BTreeMap<&str, &str> =
                sources.map(|source| (text(source, "secret/items/0/path"), text(source, "secret/name"))).collect();
            assert_eq!(found, ours.iter().map(|(_, file, secret)| (*file, *secret)).collect());
        }
    }
}
