use super::*;

fn parse(text: &str) -> Result<Agents, ConfigError> {
    Agents::parse(Path::new("agents.toml"), text)
}

#[test]
fn the_documented_example_is_read() {
    let text = r#"
default = "echo"
[agents.echo]
kind = "builtin"
[agents.writer]
kind = "process"; command = ["python3", "writer.py"]; env = ["LANG"]; max = 4; min_warm = 1; queue = 100; timeout = "15m"; memory = "512MiB"; network = false
"#
    .replace("; ", "\n");
    let agents = parse(&text).unwrap();
    assert_eq!(agents.default.as_str(), "echo");
    let writer = &agents.agents["writer"];
    assert_eq!(writer.kind, AgentKind::Process(vec!["python3".to_owned(), "writer.py".to_owned()]));
    assert_eq!((writer.max, writer.min_warm, writer.queue), (4, 1, 100));
    assert_eq!(writer.timeout, Duration::from_secs(900));
    assert_eq!((writer.sandbox.memory_bytes, &writer.sandbox.network), (512 * 1024 * 1024, &sandbox::Network::None));
}

#[test]
fn without_a_file_there_are_echo_and_demo() {
    let agents = Agents::built_in();
    assert_eq!(agents.default.as_str(), "echo");
    assert_eq!(agents.agents["demo"].kind, AgentKind::Builtin(Builtin::Demo));
}

#[test]
fn the_only_agent_is_the_default() {
    assert_eq!(parse("[agents.solo]\nkind = \"command\"\ncommand = [\"cat\"]\n").unwrap().default.as_str(), "solo");
}

#[test]
fn an_agent_of_the_agent_client_protocol_has_permissions_by_kind_of_tool() {
    let coder = "[agents.coder]\nkind = \"acp\"\ncommand = [\"gemini\", \"--acp\"]\n";
    let of = |text: &str| match parse(text).unwrap().agents["coder"].kind.clone() {
        AgentKind::Acp(command, permissions) => {
            assert_eq!(command, ["gemini", "--acp"]);
            permissions
        }
        other => panic!("{other:?}"),
    };
    let defaults = of(coder);
    assert_eq!(defaults, Permissions::default());
    assert_eq!([defaults.read, defaults.edit, defaults.search], [Permission::Allow; 3]);
    assert_eq!([defaults.execute, defaults.delete, defaults.fetch, defaults.switch_mode, defaults.other], [Permission::Ask; 5]);
    let expected = Permissions { execute: Permission::Allow, delete: Permission::Deny, r#move: Permission::Ask, ..defaults };
    assert_eq!(of(&format!("{coder}permissions = {{ execute = \"allow\", delete = \"deny\", move = \"ask\" }}\n")), expected);
    let table = "[agents.coder.permissions]\nexecute = \"allow\"\ndelete = \"deny\"\nmove = \"ask\"\n";
    assert_eq!(of(&format!("{coder}{table}")), expected);
}

#[test]
fn a_bad_value_names_file_line_key_and_the_accepted_form() {
    let check = |text: &str, place: &str, form: &str| {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("agents.toml {place}")), "{error}");
        assert!(error.contains(form), "{error}");
    };
    let echo = "[agents.echo]\nkind = \"builtin\"\n";
    check(&format!("{echo}timeout = \"soon\"\n"), "line 3, agents.echo.timeout:", r#"a duration such as "30s""#);
    let cat = "[agents.x]\nkind = \"command\"\ncommand = [\"cat\"]\n";
    check(&format!("{cat}memory = \"lots\"\n"), "line 4, agents.x.memory:", r#"a size such as "512MiB""#);
    check(&format!("{cat}memory = \"1MiB\"\n"), "line 4, agents.x.memory:", r#"at least "16MiB""#);
    check(&format!("{cat}cpus = 0.0\n"), "line 4, agents.x.cpus:", "expected 0.01 to 1024");
    check(&format!("{cat}processes = 0\n"), "line 4, agents.x.processes:", "expected 1 to 100000");
    check(&format!("{cat}sandbox = \"jail\"\n"), "line 4, agents.x.sandbox:", "`bubblewrap`");
    check(&format!("{cat}network = \"all\"\n"), "line 4, agents.x.network:", r#"true, false, "host", or a list"#);
    check(&format!("{cat}network = 7\n"), "line 4, agents.x.network:", r#"true, false, "host", or a list"#);
    check(&format!("{cat}network = [\"example.com:0\"]\n"), "line 4, agents.x.network:", r#"such as "api.example.com:443""#);
    check(&format!("{cat}network = [\"http://example.com\"]\n"), "line 4, agents.x.network:", r#"such as "api.example.com:443""#);
    check(&format!("{cat}secrets = [\"A-B\"]\n"), "line 4, agents.x.secrets:", r#"or "VARIABLE=secret/key""#);
    check(&format!("{cat}secrets = [\"A=\"]\n"), "line 4, agents.x.secrets:", r#"or "VARIABLE=secret/key""#);
    check(&format!("{echo}secrets = [\"A\"]\n"), "line 3, agents.echo.secrets:", "only for programs");
    check(&format!("{echo}network = true\n"), "line 3, agents.echo.network:", "only for programs");
    check(&format!("{cat}[sandbox]\naccept = [\"anything\"]\n"), "line 5, sandbox.accept:", r#"expected some of "landlock", "processes""#);
    check(&format!("{echo}max = 0\n"), "line 3, agents.echo.max:", "expected 1 to 4096");
    let process = "[agents.x]\nkind = \"process\"\ncommand = [\"cat\"]\n";
    check(&format!("{process}min_warm = 9999\n"), "line 4, agents.x.min_warm:", "expected 0 to 4");
    check(&format!("{echo}queue = 9\nmin_warm = 1\n"), "line 4, agents.echo.min_warm:", "only for kind = \"process\" and \"acp\"");
    check(&format!("{echo}silent = \"1s\"\n"), "line 3, agents.echo.silent:", "built-in");
    check(&format!("{process}silent = \"0s\"\n"), "line 4, agents.x.silent:", "more than nothing");
    check(&format!("{process}silent = \"15m\"\n"), "line 4, agents.x.silent:", "less than `timeout`");
    check(&format!("{process}timeout = \"9s\"\nsilent = \"10s\"\n"), "line 5, agents.x.silent:", "less than `timeout`");
    check(&format!("{echo}\nattempts = 0\n"), "line 4, agents.echo.attempts:", "expected 1 to 100");
    check(&format!("{echo}timeout = \"0s\"\n"), "line 3, agents.echo.timeout:", "more than nothing");
    check(&format!("{echo}rate = \"60\"\n"), "line 3, agents.echo.rate:", r#"such as "60/m""#);
    check(&format!("{echo}concurrency_key = \"customer\"\n"), "line 3, agents.echo.concurrency_key:", r#""context.NAME""#);
    check(&format!("{echo}max = 1\nenv = [\n  \"LANG\",\n  \"A=B\",\n]\n"), "line 4, agents.echo.env:", r#""A=B""#);
    check(&format!("{echo}max = 1\nenv = [\n  \"LANG\",\n  7,\n]\n"), "line 4, agents.echo.env:", "expected a string");
    check("[agents.x]\nkind = \"process\"\nmax = 1\ncommand = []\n", "line 4, agents.x.command:", "expected a program");
    check("[agents.x]\nkind = \"command\"\ncommand = [\"x\"]\nbuiltin = \"echo\"\n", "line 4, agents.x.builtin:", "only for");
    check("[agents.a]\nkind = \"builtin\"\nbuiltin = \"echo\"\n[agents.b]\nmax = 1\n", "line 4, agents.b:", "missing field `kind`");
    check("agents.x.kind = \"builtin\"\nagents.x.builtin = \"echo\"\nagents.x.max = 0\n", "line 3, agents.x.max:", "expected 1 to 4096");
    check(&format!("{echo}timout = \"1s\"\n"), "line 3, agents.echo.timout:", "unknown field");
    check(&format!("{echo}command = [\"x\"]\n"), "line 3, agents.echo.command:", "no command");
    check("[agents.x]\nkind = \"robot\"\n", "line 2, agents.x.kind:", "`process`");
    check("[agents.x]\nkind = \"process\"\n", "line 1, agents.x.command:", "expected a program");
    check("[agents.x]\nkind = \"builtin\"\n", "line 1, agents.x.builtin:", r#""echo" or "demo""#);
    check("[agents.Bad_Name]\nkind = \"builtin\"\n", "line 1, agents.Bad_Name:", "a-z");
    check(&format!("default = \"nobody\"\n{echo}"), "line 1, default:", "expected one of echo");
    let coder = "[agents.x]\nkind = \"acp\"\ncommand = [\"x\"]\n";
    check("[agents.x]\nkind = \"acp\"\n", "line 1, agents.x.command:", "expected a program");
    let bad = format!("{coder}permissions = {{ read = \"allow\", execute = \"maybe\" }}\n");
    check(&bad, "line 4, agents.x.permissions:", r#"execute = "maybe": expected "allow", "ask" or "deny""#);
    let bad = format!("{coder}[agents.x.permissions]\nread = \"allow\"\nexecute = \"Allow\"\n");
    check(&bad, "line 6, agents.x.permissions:", r#"execute = "Allow": expected "allow""#);
    check(
        &format!("{coder}permissions = {{ erase = \"ask\" }}\n"),
        "line 4, agents.x.permissions:",
        "erase: expected a kind of tool: read,",
    );
    check(&format!("{coder}permissions = {{ read = 1 }}\n"), "line 4, agents.x.permissions:", "expected a string");
    check(&format!("{coder}permissions = \"allow\"\n"), "line 4, agents.x.permissions:", "expected a map");
    check(&format!("{echo}permissions = {{ read = \"ask\" }}\n"), "line 3, agents.echo.permissions:", "only for");
    check("[agents.x]\nkind = \"process\"\ncommand = [\"x\"]\npermissions = {}\n", "line 4, agents.x.permissions:", "only for");
    check("", "line 1, agents:", "at least one agent");
}

#[test]
fn the_network_is_off_on_through_the_proxy_or_the_machines_own() {
    use sandbox::{Allowed, Network};
    let check = |value: &str, expected: Network| {
        let text = format!("[agents.x]\nkind = \"command\"\ncommand = [\"cat\"]\nnetwork = {value}\n");
        assert_eq!(parse(&text).unwrap().agents["x"].sandbox.network, expected, "{value}");
    };
    let host = |host: &str, port| Allowed { host: host.to_owned(), port };
    check("false", Network::None);
    check("true", Network::Allowed(vec![host("*", None)]));
    check("\"host\"", Network::Host);
    let hosts = vec![host("api.example.com", Some(443)), host("*.example.org", None), host("[::1]", Some(80)), host("10.0.0.7", Some(80))];
    check(r#"["API.example.com:443", "*.example.org", "[::1]:80", "10.0.0.7:80"]"#, Network::Allowed(hosts));
}

#[test]
fn a_secret_is_named_by_itself_or_with_its_variable_and_key() {
    let text = "[agents.x]\nkind = \"command\"\ncommand = [\"cat\"]\nsecrets = [\"API_KEY\", \"A=b-c\", \"D=e.f/g\"]\n";
    let secrets = &parse(text).unwrap().agents["x"].secrets;
    let told: Vec<_> = secrets.iter().map(|it| (it.variable.as_str(), it.secret.as_str(), it.key.as_str())).collect();
    assert_eq!(told, [("API_KEY", "API_KEY", "API_KEY"), ("A", "b-c", "b-c"), ("D", "e.f", "g")]);
}
