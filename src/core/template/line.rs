//! A text that grows piece by piece, and in which what is text stays text.

use super::document::Mode;
use super::error::{Path, Problem, TemplateError, clip};
use super::reference::{Piece, bare, pieces, unescaped, whole};
use serde_json::Value;

pub(super) struct Line<'a> {
    pub(super) text: String,
    mode: Mode,
    path: &'a Path<'a>,
}

impl<'a> Line<'a> {
    pub(super) fn new(mode: Mode, path: &'a Path<'a>) -> Line<'a> {
        Line { text: String::new(), mode, path }
    }

    /// A piece in the language that the field is read in.
    pub(super) fn push(&mut self, piece: &str) -> Result<(), TemplateError> {
        if self.mode == Mode::Data && self.text.ends_with('$') {
            if let Some(Ok(Piece::Reference(inside))) = pieces(piece).next() {
                return Err(self.path.wrong(Problem::Dollar { reference: clip(inside) }));
            }
            if piece.starts_with('{') {
                self.text.push('$');
            }
        }
        self.text.push_str(piece);
        Ok(())
    }

    /// The text `${`.
    pub(super) fn escape(&mut self) -> Result<(), TemplateError> {
        match self.mode {
            Mode::Data => self.push("$${"),
            Mode::Plain | Mode::Expression => self.push("${"),
        }
    }

    /// Something that is known to the running workflow.
    pub(super) fn reference(&mut self, inside: &str) -> Result<(), TemplateError> {
        match self.mode {
            Mode::Expression => self.push(&bare(inside)),
            Mode::Data | Mode::Plain => self.push(&format!("${{{inside}}}")),
        }
    }

    /// A parameter's value, in the language of definitions.
    pub(super) fn value(&mut self, value: &Value) -> Result<(), TemplateError> {
        match (self.mode, value) {
            (Mode::Data, Value::String(text)) => self.push(text),
            (Mode::Data, value) => self.push(&value.to_string()),
            (Mode::Expression, Value::String(text)) if whole(text).is_some() => {
                self.reference(whole(text).unwrap_or_default())
            }
            (Mode::Expression, value) => self.push(&unescaped(value, self.path)?.to_string()),
            (Mode::Plain, value) => match unescaped(value, self.path)? {
                Value::String(text) => self.push(&text),
                value => self.push(&value.to_string()),
            },
        }
    }
}
