//! Lists, maps and messages: elements between brackets, with commas.

use super::{GaveUp, Parsed, Parser};
use crate::ast::{Element, Entry, Expr, Field, Node};
use crate::lexer::{Lexeme, Token};

impl Parser<'_> {
    /// Whether `.a.b{` follows, and how many tokens come before the brace.
    pub(super) fn message_name(&self) -> Option<usize> {
        let mut length = 0;
        while self.ahead(length).token == Token::Dot && self.ahead(length + 1).token == Token::Identifier {
            length += 2;
        }
        (self.ahead(length).token == Token::OpenBrace).then_some(length)
    }

    pub(super) fn message(&mut self, first: Lexeme, length: usize) -> Parsed<Node> {
        let mut name = self.text(first);
        for _ in 0..length / 2 {
            self.next += 1;
            let part = self.take();
            name.push('.');
            name.push_str(&self.text(part));
        }
        let open = self.take();
        let mut fields = Vec::new();
        while !self.at_close(Token::CloseBrace) {
            let optional = self.accept(Token::Question).is_some();
            let field = self.peek();
            if !matches!(field.token, Token::Identifier | Token::EscapedIdentifier) {
                return Err(GaveUp::WrongToken);
            }
            self.next += 1;
            if field.token == Token::EscapedIdentifier {
                self.error(field.start, "unsupported syntax: '`'");
            }
            let colon = self.expect(Token::Colon)?;
            let value = self.expr()?;
            fields.push(Field { at: colon.start, name: self.text(field), value, optional });
            self.separator(Token::CloseBrace)?;
        }
        self.expect(Token::CloseBrace)?;
        let below = fields.iter().map(|field| field.value.height).max().unwrap_or(0);
        Ok(self.node(open.start, below, Expr::Struct { name, fields }))
    }

    /// Whether the closing token comes next, maybe after one last comma.
    fn at_close(&mut self, close: Token) -> bool {
        if self.peek().token == Token::Comma && self.ahead(1).token == close {
            self.next += 1;
        }
        self.peek().token == close
    }

    /// After an element: a comma, or the closing token, which is left.
    fn separator(&mut self, close: Token) -> Parsed<()> {
        if self.peek().token == close || (self.peek().token == Token::Comma && self.ahead(1).token == close) {
            return Ok(());
        }
        self.expect(Token::Comma)?;
        // One comma may come before the end, not two.
        if self.peek().token == Token::Comma { Err(GaveUp::WrongToken) } else { Ok(()) }
    }

    pub(super) fn list(&mut self) -> Parsed<Node> {
        let open = self.take();
        let mut elements = Vec::new();
        while !self.at_close(Token::CloseBracket) {
            let optional = self.accept(Token::Question).is_some();
            elements.push(Element { value: self.expr()?, optional });
            self.separator(Token::CloseBracket)?;
        }
        self.expect(Token::CloseBracket)?;
        let below = elements.iter().map(|element| element.value.height).max().unwrap_or(0);
        Ok(self.node(open.start, below, Expr::List(elements)))
    }

    pub(super) fn map(&mut self) -> Parsed<Node> {
        let open = self.take();
        let mut entries = Vec::new();
        while !self.at_close(Token::CloseBrace) {
            let optional = self.accept(Token::Question).is_some();
            let key = self.expr()?;
            self.expect(Token::Colon)?;
            entries.push(Entry { key, value: self.expr()?, optional });
            self.separator(Token::CloseBrace)?;
        }
        self.expect(Token::CloseBrace)?;
        let below = entries.iter().map(|entry| entry.key.height.max(entry.value.height)).max().unwrap_or(0);
        Ok(self.node(open.start, below, Expr::Map(entries)))
    }
}
