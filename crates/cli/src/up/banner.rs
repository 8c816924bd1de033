//! What `fte up` says when it is ready: where it is, and what to try first.

use super::ready::Place;

pub(super) fn text(place: &Place) -> String {
    let Place { api, sidecar, data, .. } = place;
    let data = data.display();
    let url = if place.is_elsewhere() { format!(" --url {api}") } else { String::new() };
    format!(
        "FTE is ready at {api}  (API docs: {api}/docs)

  give it a task    curl -s {api}/v1/tasks -H 'content-type: application/json' -d '{{\"task\":\"Say hello\"}}'
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
        let text = text(&place(9000));
        assert!(
            text.contains("curl -s http://127.0.0.1:9000/v1/tasks -H 'content-type: application/json' -d '{\"task\":\"Say hello\"}'"),
            "{text}"
        );
        assert!(text.contains("fte watch --url http://127.0.0.1:9000 <task_id>") && text.contains("data              /d"), "{text}");
        assert!(super::text(&place(8080)).contains("fte watch <task_id>"));
    }
}
