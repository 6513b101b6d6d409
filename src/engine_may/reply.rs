//! Replies through `may_minihttp`'s own response, whose header fields are constants.

use may_minihttp::Response;

use crate::api::Reply;
use crate::connection::{ReplyOptions, spell_out};
use crate::http::Status;

/// Every field beside those that each reply has.
const FIELDS: [&str; 3] = ["Allow: POST, OPTIONS", "Allow: GET, HEAD, OPTIONS", "Retry-After: 1"];

/// Fills in one reply and returns its status.
pub(super) fn write(response: &mut Response, reply: &Reply, options: ReplyOptions) -> Status {
    spell_out(reply, |status, body, extra| {
        response.status_code(status.code().into(), status.reason());
        if status.has_content() {
            response.header("Content-Type: application/json");
        }
        if options.close {
            response.header("Connection: close");
        } else if options.confirm_keep_alive {
            response.header("Connection: keep-alive");
        }
        for (name, value) in extra {
            let field = FIELDS.into_iter().find(|field| field.split_once(": ") == Some((*name, *value)));
            debug_assert!(field.is_some(), "{name}: {value}");
            response.header(field.unwrap_or_default());
        }
        // The crate can't leave the body of a reply to HEAD away and keep its length.
        if status.has_content() && !options.head_only {
            response.body_mut().extend_from_slice(body);
        }
        status
    })
}
