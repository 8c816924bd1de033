//! Lists that come in pages. A page may be short, even empty, and not be the last; so pages are read until there is as much as was asked for.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::client::{Client, query};
use crate::error::Error;
use crate::output::{Output, printable};

/// A part of a list, as it came.
#[derive(Debug, Serialize)]
pub(crate) struct Listing {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

#[derive(serde::Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl Listing {
    /// Up to `limit` items. `cursor` names the parameter that takes a cursor, and where to begin.
    pub(crate) async fn read(
        client: &Client,
        path: &str,
        filters: &[(&str, Option<&str>)],
        cursor: (&str, Option<String>),
        limit: u16,
    ) -> Result<Self, Error> {
        let (cursor_name, next_cursor) = cursor;
        let mut listing = Self { items: Vec::new(), next_cursor };
        loop {
            let rest = usize::from(limit).saturating_sub(listing.items.len()).to_string();
            let paging = [(cursor_name, listing.next_cursor.as_deref()), ("limit", Some(rest.as_str()))];
            let page: Page = client.get(&format!("{path}{}", query(&[filters, &paging[..]].concat()))).await?.json()?;
            listing.items.extend(page.items);
            listing.next_cursor = page.next_cursor;
            if listing.next_cursor.is_none() || listing.items.len() >= usize::from(limit) {
                return Ok(listing);
            }
        }
    }

    /// Its items.
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<Vec<T>, Error> {
        let items = self.items.iter().map(|item| serde_json::from_str(item.get()));
        items.collect::<Result<_, _>>().map_err(|error| Error::Failed(format!("an item of the list cannot be read: {error}")))
    }

    /// Prints it: as JSON, or a row for each item.
    pub(crate) fn print<T: DeserializeOwned, const N: usize>(
        &self,
        output: Output,
        (what, cursor_option): (&str, &str),
        header: [&str; N],
        row: impl Fn(T) -> [String; N],
    ) -> Result<(), Error> {
        if output.json {
            return output.json_line(self);
        }
        if self.items.is_empty() {
            output.note(format!("no {what}"));
            return Ok(());
        }
        output.table(header, self.parsed()?.into_iter().map(row))?;
        if let Some(cursor) = &self.next_cursor {
            output.note(format!("more with {cursor_option} {}", printable(cursor)));
        }
        Ok(())
    }
}
