//! What `fte up` says when it is ready: where it is, and what to try first.

use super::ready::Place;

/// Whether callers need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    Anybody,
    WithKey,
}

pub(super) fn text(place: &Place, callers: Callers) -> String {
    let Place { api, sidecar, data, .. } = place;
    let data = data.display();
    let url = if place.is_elsewhere() { format!(" --url {api}") } else { String::new() };
    let (header, keys) = match callers {
        Callers::Anybody => ("", ""),
        Callers::WithKey => (
            " -H \"authorization: Bearer $FTE_API_KEY\"",
            "\n  first             export FTE_API_KEY=…  (who calls needs a key: one of your file of keys; `fte keys new` makes one)",
        ),
    };
    format!(
        "FTE is ready at {api}  (API docs: {api}/docs)
{keys}
  give it a task    curl -s {api}/v1/tasks -H 'content-type: application/json'{header} -d '{{\"task\":\"Say hello\"}}'
  or                fte submit{url} --wait \"Write a haiku\"
  watch it          fte watch{url} <task_id>

  data              {data}
  sidecar           {sidecar}  (Dapr's HTTP API, for your own programs)
  stop              Ctrl-C"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_address_a_line_to_paste_and_the_data() {
        let place = |port: u16| Place {
            api: format!("http://127.0.0.1:{port}"),
            sidecar: "http://127.0.0.1:3500".into(),
            pid: 1,
            data: "/d".into(),
        };
        let text = text(&place(9000), Callers::Anybody);
        assert!(
            text.contains("curl -s http://127.0.0.1:9000/v1/tasks -H 'content-type: application/json' -d '{\"task\":\"Say hello\"}'"),
            "{text}"
        );
        assert!(text.contains("fte watch --url http://127.0.0.1:9000 <task_id>") && text.contains("data              /d"), "{text}");
        assert!(super::text(&place(8080), Callers::Anybody).contains("fte watch <task_id>"));
        assert!(!text.contains("FTE_API_KEY"), "{text}");
        let text = super::text(&place(9000), Callers::WithKey);
        assert!(text.contains("export FTE_API_KEY=…") && text.contains(" -H \"authorization: Bearer $FTE_API_KEY\" -d "), "{text}");
    }
}
