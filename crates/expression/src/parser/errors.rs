//! What a syntax error says, in the words of the grammar's generated parser.

use super::{GaveUp, Parser};
use crate::error::Issue;
use crate::lexer::{Lexeme, Token};
use crate::limits::MAX_RECURSION_DEPTH;
use crate::source::report;

/// What may follow an operand inside an expression.
const FOLLOW: [Token; 17] = [
    Token::Equals,
    Token::NotEquals,
    Token::In,
    Token::Less,
    Token::LessEquals,
    Token::GreaterEquals,
    Token::Greater,
    Token::And,
    Token::Or,
    Token::OpenBracket,
    Token::Dot,
    Token::Minus,
    Token::Question,
    Token::Plus,
    Token::Star,
    Token::Slash,
    Token::Percent,
];

impl Parser<'_> {
    pub(super) fn quoted(&self, lexeme: Lexeme) -> String {
        let text = if lexeme.token == Token::End { "<EOF>".into() } else { self.text(lexeme) };
        format!("'{}'", text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r"))
    }

    pub(super) fn syntax(&mut self, got: Lexeme, what: &str, expected: &[Token]) {
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        let names: Vec<String> = sorted.iter().map(|token| token.shown()).collect();
        let names = if names.len() == 1 { names[0].clone() } else { format!("{{{}}}", names.join(", ")) };
        let message = format!("Syntax error: {what} {} expecting {names}", self.quoted(got));
        report(&mut self.issues, got.start, message);
    }

    pub(super) fn no_viable(&mut self, from: Lexeme, got: Lexeme) -> GaveUp {
        let text: String = self.chars[from.start as usize..got.end as usize].iter().collect();
        let message = match text.strip_prefix('.') {
            Some(word @ ("true" | "false" | "null")) => {
                format!("Syntax error: mismatched input '{word}' expecting IDENTIFIER")
            }
            _ => format!("Syntax error: no viable alternative at input '{}'", text.trim_end()),
        };
        report(&mut self.issues, got.start, message);
        GaveUp
    }

    pub(super) fn error(&mut self, at: u32, message: impl Into<String>) {
        report(&mut self.issues, at, message);
    }

    pub(super) fn too_deep(&mut self) -> GaveUp {
        let message = format!("expression recursion limit exceeded: {MAX_RECURSION_DEPTH}");
        self.issues.push(Issue { offset: None, message });
        GaveUp
    }
}

/// What could have come after an operand instead of this token: anything that goes on with the expression, unless
/// the token may follow an expression somewhere and so ended it.
pub(super) fn expected_after_operand(got: Token, wanted: Token) -> Vec<Token> {
    let ends = [Token::End, Token::CloseParen, Token::CloseBracket, Token::CloseBrace, Token::Comma, Token::Colon];
    let mut expected = if ends.contains(&got) { Vec::new() } else { FOLLOW.to_vec() };
    expected.push(wanted);
    expected
}

/// Whether a missing closing token is plausible before this one.
pub(super) fn follows_close(got: Token, wanted: Token) -> bool {
    let closes = matches!(wanted, Token::CloseParen | Token::CloseBracket | Token::CloseBrace);
    closes && matches!(got, Token::End)
}
