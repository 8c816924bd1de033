"use strict";
const main = document.getElementById("main");
const questionUrl = location.pathname;
const decisionUrl = questionUrl.replace(/\/v1\/approvals\/([^/]+)$/, "/v1/tasks/$1/approval");
let key = "";

// Numbers stay as they are written, which JavaScript's own would round; where a browser cannot do that, nothing is edited that would come out otherwise.
const isExact = typeof JSON.rawJSON === "function";
function parse(text) {
  return JSON.parse(text, (_, value, written) =>
    isExact && typeof value === "number" && String(value) !== written.source ? JSON.rawJSON(written.source) : value);
}
function isRounded(value) {
  if (typeof value === "number") return !isExact && !Number.isSafeInteger(value) && Number.isInteger(value);
  return value !== null && typeof value === "object" && Object.values(value).some(isRounded);
}

// Text only: nothing of what is shown is ever read as a document.
function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes || {})) made.setAttribute(attribute, value);
  return made;
}

function show(...parts) {
  main.replaceChildren(...parts);
}

function labelled(text, field) {
  const label = element("label", text);
  label.append(field);
  return label;
}

async function call(method, body) {
  const headers = { accept: "application/json" };
  if (key) headers.authorization = "Bearer " + key;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(method === "GET" ? questionUrl : decisionUrl, { method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store" });
  const text = await answer.text();
  try {
    return { status: answer.status, value: parse(text) };
  } catch {
    return { status: answer.status, value: {} };
  }
}

function askForKey(problem) {
  const field = element("input", undefined, { type: "password", id: "key", autocomplete: "off" });
  const form = element("form");
  const row = element("div", undefined, { class: "row" });
  row.append(element("button", "Continue", { id: "continue" }));
  form.append(labelled("Your API key. It is kept until this page is closed, and nowhere else.", field), row);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key = field.value.trim();
    load();
  });
  show(element("h1", "Who are you?"), element("p", problem || "This instance asks for a key.", { class: "error" }), form);
}

// What the reader did, where it was not what came of it.
function noticed(notice) {
  return notice ? [element("p", notice, { id: "notice", role: "status" })] : [];
}

function decided(question, notice) {
  const made = question.decision;
  if (!made) return show(element("h1", "Nothing is asked any more"), ...noticed(notice), element("p", "The task has ended, or the question has run out."));
  const word = made.approved ? "Approved" : "Rejected";
  const edited = made.edited ? ", with an edit" : "";
  show(element("h1", word, { id: "outcome" }), element("p", `By ${made.approver}${edited}, ${new Date(made.decided_at).toLocaleString()}.`), ...noticed(notice), ...(made.reason ? [element("p", made.reason)] : []));
}

function ask(question, notice) {
  const facts = element("dl");
  const ends = question.default === "approve" ? "then it counts as approved" : "then the task ends";
  const rows = [
    ["task", question.task_id],
    ["agent", question.agent],
    ["about", question.action],
    ["until", `${new Date(question.expires_at).toLocaleString()}; ${ends}`],
    ["who decides", question.approvers && question.approvers.join(", ")],
  ];
  for (const [name, value] of rows) if (value) facts.append(element("dt", name), element("dd", value));

  const original = question.data === undefined || question.data === null ? "" : JSON.stringify(question.data, null, 2);
  const shown = element("pre", original, { id: "data" });
  shown.hidden = original === "";
  const edit = element("textarea", undefined, { id: "edit", spellcheck: "false" });
  edit.value = original;
  const editor = labelled("What the agent shall get instead, as JSON", edit);
  editor.hidden = true;
  const name = element("input", undefined, { id: "approver", autocomplete: "name" });
  const named = labelled("Your name", name);
  named.hidden = key !== "";
  const reason = element("input", undefined, { id: "reason" });
  const error = element("p", "", { class: "error", id: "error", role: "alert" });

  const row = element("div", undefined, { class: "row" });
  const button = (id, text, act) => {
    const made = element("button", text, { id, type: "button" });
    made.addEventListener("click", act);
    row.append(made);
    return made;
  };
  const send = async (approved) => {
    const body = { approved, question: question.question };
    if (reason.value.trim()) body.reason = reason.value.trim();
    if (name.value.trim()) body.approver = name.value.trim();
    if (!named.hidden && !body.approver) {
      error.textContent = "Say who you are: the record names who decided.";
      name.focus();
      return;
    }
    if (approved && !editor.hidden && edit.value !== original) {
      try {
        body.edit = parse(edit.value);
      } catch (problem) {
        error.textContent = `This is not JSON: ${problem.message}`;
        return;
      }
    }
    if (!approved && !body.reason) {
      error.textContent = "Say why: the agent and the record should know.";
      reason.focus();
      return;
    }
    for (const each of row.children) each.disabled = true;
    const answer = await call("POST", body).catch((problem) => ({ status: 0, value: { detail: problem.message } }));
    if (answer.status === 200) return load(answer.value.already ? "It was decided so before you did." : "");
    if (answer.status === 409) return load(answer.value.detail);
    for (const each of row.children) each.disabled = false;
    const wrong = (answer.value.errors || []).map((each) => each.detail).join("; ");
    error.textContent = [answer.value.detail || `The answer was ${answer.status}.`, wrong].filter(Boolean).join(" ");
  };
  button("approve", "Approve", () => send(true));
  button("reject", "Reject", () => send(false));
  if (question.editable && isRounded(question.data)) {
    error.textContent = "This browser rounds large numbers, so nothing can be edited in it: use a newer one, or `fte approve --edit`.";
  } else if (question.editable) {
    const toggle = button("change", "Edit", () => {
      editor.hidden = false;
      shown.hidden = true;
      toggle.hidden = true;
      edit.focus();
    });
  }
  show(element("h1", question.reason || "May it go on?", { id: "question" }), ...noticed(notice), facts, shown, editor, labelled("Why (the agent reads it)", reason), named, row, error);
}

async function load(notice) {
  try {
    const { status, value } = await call("GET");
    if (status === 401 || status === 403) return askForKey(key ? value.detail : undefined);
    if (status !== 200) return show(element("h1", "There is nothing to decide"), element("p", value.detail || `The answer was ${status}.`));
    if (value.open) ask(value, notice);
    else decided(value, notice);
  } catch (problem) {
    show(element("h1", "The instance cannot be reached"), element("p", problem.message));
  }
}

load();
