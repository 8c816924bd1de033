//! `GET /v1/tasks/{id}/tree`
//!
//! A child's id follows from its parent's and its number, and the numbers are gapless: so a task's children are looked up one after the other, and need neither a
//! column nor an index. (A column with the parent lost: every task would pay for it, and few have one.)

use axum::extract::State;
use fte_events::TaskId;
use fte_service::Problem;
use fte_service::extract::{Json, Path};
use fte_service::keys::{Caller, Scope};
use futures_util::future::BoxFuture;

use super::{AppState, unavailable};
use crate::store::TaskRow;
use crate::view::{TaskView, TreeView};

/// Most tasks in a tree.
const TASKS_MAX: usize = 256;
/// A later child may be known here before an earlier one.
const GAP_MAX: u32 = 3;

/// A task, what it handed off, what those handed off, and so on; at most 256 tasks.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/tree", tag = "tasks", params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "The task with its children", body = TreeView),
        (status = 400, description = "`invalid_path`"),
        (status = 404, description = "`task_not_found`"),
        (status = 503, description = "`too_many_waiters`, `status_unavailable`"),
    )
)]
pub(crate) async fn get(State(app): State<AppState>, caller: Caller, Path(id): Path<TaskId>) -> Result<Json<TreeView>, Problem> {
    let row = app.known(id, caller.scope()).await?;
    let mut room = TASKS_MAX - 1;
    Ok(Json(grown(&app, row, caller.scope(), &mut room).await?))
}

/// The task with all below it, as far as there is room.
fn grown<'a>(app: &'a AppState, row: TaskRow, scope: &'a Scope, room: &'a mut usize) -> BoxFuture<'a, Result<TreeView, Problem>> {
    Box::pin(async move {
        let id = row.id;
        let mut node = TaskView::new(row).into_leaf();
        let (mut ordinal, mut missing) = (0, 0);
        while missing < GAP_MAX {
            ordinal += 1;
            let child = app.store.task(TaskId::of_handoff(id, ordinal), scope.clone()).await.map_err(|error| unavailable(&error))?;
            match child {
                None => missing += 1,
                Some(_) if *room == 0 => {
                    node.truncated = true;
                    break;
                }
                Some(row) => {
                    missing = 0;
                    *room -= 1;
                    node.children.push(grown(app, row, scope, room).await?);
                }
            }
        }
        Ok(node)
    })
}
