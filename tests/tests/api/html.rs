//! The functions that answer with HTML.

use pg_shell_tests::Caller;
use uuid::Uuid;

use crate::world::world;

#[test]
fn html_is_escaped_wherever_it_comes_from() {
    let (db, _) = world();
    let bad = "<script>alert(\"1\" + '&')</script>";
    let user = db.user(&bad[..31]);
    let caller = Caller::user(user);
    let session: Uuid = db.asked(&caller, "select shell_api.create_session($1)", &[&bad]);
    db.query(
        "update shell.environments set cwd = '/' || $1 where id = $2",
        &[&bad, &session],
    );
    let quoted = bad.replace('\'', "'\\''");
    let command = format!(
        "mkdir -p \"$PWD\"; printf '%s\\n' '{quoted}'; printf '\\033[31mred\\033[0m \\033]0;title\\007 10%%\\r20%%\\r\\nend\\a'; exit 3"
    );
    let id: i64 = db.asked(&caller, "select shell_api.submit_command($1)", &[&command]);
    db.wait(id);
    let waiting: i64 = db.asked(
        &caller,
        "select shell_api.submit_command('true', environment_id => $1)",
        &[&session],
    );
    db.wait(waiting);
    let escaped = "&lt;script&gt;alert(&quot;1&quot; + &#39;&amp;&#39;)&lt;/script&gt;";
    for sql in [
        "select shell_api.latest_output_html()::text",
        &format!("select shell_api.command_html({id})::text"),
        &format!("select shell_api.command_html({waiting})::text"),
        "select shell_api.sessions_html()::text",
    ] {
        let html: String = db.asked(&caller, sql, &[]);
        assert!(
            html.contains(escaped) && !html.contains("<script"),
            "{html}"
        );
        let control = ['\u{1b}', '\u{7}', '\r'];
        assert!(!html.contains(control), "{html}");
    }
    let sql = format!("select shell_api.command_html({id})::text");
    let html: String = db.asked(&caller, &sql, &[]);
    let output = format!("<pre class=\"output\">{escaped}\n20%\nend</pre>");
    for part in [
        output.as_str(),
        "data-status=\"failed\"",
        "<span class=\"exit-code\">3</span>",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    let domain: String = db.one("select pg_typeof(shell_api.sessions_html())::text", &[]);
    assert_eq!(domain, "shell_api.\"text/html\"");
}
