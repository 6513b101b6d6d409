//! Conversion of a reply to the response type of `may_minihttp`, whose header fields are static strings.

use may_minihttp::Response;

use crate::api::Reply;
use crate::connection::{ReplyOptions, spell_out};
use crate::http::Status;

/// The header fields that only some replies have.
const FIELDS: [&str; 4] =
    ["Accept-Encoding: identity", "Allow: POST, OPTIONS", "Allow: GET, HEAD, OPTIONS", "Retry-After: 1"];

/// Fills in the response for a reply, and returns the status.
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
        // `may_minihttp` computes Content-Length from the body, so a reply to HEAD has the length 0.
        if status.has_content() && !options.head_only {
            response.body_mut().extend_from_slice(body);
        }
        status
    })
}
