//! Sets of tokens, and what may come at the places of the grammar.

use crate::lexer::Token;

/// Tokens, one bit each.
pub(super) type Set = u64;

/// The rule may end here.
pub(super) const END_OF_RULE: Set = 1 << 63;

pub(super) const fn set(tokens: &[Token]) -> Set {
    let (mut out, mut i) = (0, 0);
    while i < tokens.len() {
        out |= 1 << tokens[i] as u64;
        i += 1;
    }
    out
}

pub(super) const END: Set = set(&[Token::End]);
pub(super) const LITERAL: Set = set(&[
    Token::Minus,
    Token::True,
    Token::False,
    Token::Null,
    Token::Float,
    Token::Int,
    Token::Uint,
    Token::String,
    Token::Bytes,
]);
pub(super) const NUMBER: Set = set(&[Token::Int, Token::Float]);
pub(super) const NAME: Set = set(&[Token::Identifier]);
pub(super) const DOT: Set = set(&[Token::Dot]);
pub(super) const COMMA: Set = set(&[Token::Comma]);
pub(super) const COLON: Set = set(&[Token::Colon]);
pub(super) const QUESTION: Set = set(&[Token::Question]);
pub(super) const MINUS: Set = set(&[Token::Minus]);
pub(super) const NOT: Set = set(&[Token::Not]);
pub(super) const OPEN_PAREN: Set = set(&[Token::OpenParen]);
pub(super) const CLOSE_PAREN: Set = set(&[Token::CloseParen]);
pub(super) const OPEN_BRACKET: Set = set(&[Token::OpenBracket]);
pub(super) const CLOSE_BRACKET: Set = set(&[Token::CloseBracket]);
pub(super) const OPEN_BRACE: Set = set(&[Token::OpenBrace]);
pub(super) const CLOSE_BRACE: Set = set(&[Token::CloseBrace]);
/// What a primary, an expression and an element begin with.
pub(super) const PRIMARY: Set = LITERAL | NAME | DOT | OPEN_PAREN | OPEN_BRACKET | OPEN_BRACE;
pub(super) const OPERAND: Set = PRIMARY | NOT;
pub(super) const ELEMENT: Set = OPERAND | QUESTION;
pub(super) const FIELD_NAME: Set = NAME | set(&[Token::EscapedIdentifier]);
pub(super) const FIELD: Set = FIELD_NAME | QUESTION;
pub(super) const PRODUCT: Set = set(&[Token::Star, Token::Slash, Token::Percent]);
pub(super) const SUM: Set = set(&[Token::Plus, Token::Minus]);
pub(super) const RELATION: Set = set(&[
    Token::Equals,
    Token::NotEquals,
    Token::In,
    Token::Less,
    Token::LessEquals,
    Token::GreaterEquals,
    Token::Greater,
]);
pub(super) const OR: Set = set(&[Token::Or]);
pub(super) const AND: Set = set(&[Token::And]);
/// What follows rules that are followed by a loop.
pub(super) const AFTER_MEMBER: Set = DOT | OPEN_BRACKET | END_OF_RULE;
pub(super) const AFTER_UNARY: Set = PRODUCT | SUM | END_OF_RULE;
pub(super) const AFTER_CALC: Set = RELATION | END_OF_RULE;
