//! Text to tokens. What is no token is reported in the words of the grammar's generated lexer and passed over.

use crate::error::Issue;
use crate::source::report;

/// The kinds of tokens; the order is that in which error texts list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    End,
    Equals,
    NotEquals,
    In,
    Less,
    LessEquals,
    GreaterEquals,
    Greater,
    And,
    Or,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    OpenParen,
    CloseParen,
    Dot,
    Comma,
    Minus,
    Not,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Identifier,
    EscapedIdentifier,
}

/// Symbols, the longer ones first.
const SYMBOLS: [(&str, Token); 24] = [
    ("==", Token::Equals),
    ("!=", Token::NotEquals),
    ("<=", Token::LessEquals),
    (">=", Token::GreaterEquals),
    ("&&", Token::And),
    ("||", Token::Or),
    ("<", Token::Less),
    (">", Token::Greater),
    ("[", Token::OpenBracket),
    ("]", Token::CloseBracket),
    ("{", Token::OpenBrace),
    ("}", Token::CloseBrace),
    ("(", Token::OpenParen),
    (")", Token::CloseParen),
    (".", Token::Dot),
    (",", Token::Comma),
    ("-", Token::Minus),
    ("!", Token::Not),
    ("?", Token::Question),
    (":", Token::Colon),
    ("+", Token::Plus),
    ("*", Token::Star),
    ("/", Token::Slash),
    ("%", Token::Percent),
];

impl Token {
    /// Every token, in order.
    pub const ALL: [Self; 36] = [
        Self::End,
        Self::Equals,
        Self::NotEquals,
        Self::In,
        Self::Less,
        Self::LessEquals,
        Self::GreaterEquals,
        Self::Greater,
        Self::And,
        Self::Or,
        Self::OpenBracket,
        Self::CloseBracket,
        Self::OpenBrace,
        Self::CloseBrace,
        Self::OpenParen,
        Self::CloseParen,
        Self::Dot,
        Self::Comma,
        Self::Minus,
        Self::Not,
        Self::Question,
        Self::Colon,
        Self::Plus,
        Self::Star,
        Self::Slash,
        Self::Percent,
        Self::True,
        Self::False,
        Self::Null,
        Self::Float,
        Self::Int,
        Self::Uint,
        Self::String,
        Self::Bytes,
        Self::Identifier,
        Self::EscapedIdentifier,
    ];

    /// The token as error texts name it.
    pub fn shown(self) -> String {
        match self {
            Self::End => "<EOF>".into(),
            Self::In => "'in'".into(),
            Self::True => "'true'".into(),
            Self::False => "'false'".into(),
            Self::Null => "'null'".into(),
            Self::Float => "NUM_FLOAT".into(),
            Self::Int => "NUM_INT".into(),
            Self::Uint => "NUM_UINT".into(),
            Self::String => "STRING".into(),
            Self::Bytes => "BYTES".into(),
            Self::Identifier => "IDENTIFIER".into(),
            Self::EscapedIdentifier => "ESC_IDENTIFIER".into(),
            symbol => SYMBOLS
                .iter()
                .find(|(_, token)| *token == symbol)
                .map_or_else(String::new, |(text, _)| format!("'{text}'")),
        }
    }
}

/// A token and where it is, in characters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexeme {
    pub token: Token,
    pub start: u32,
    pub end: u32,
}

/// Reads all tokens; the last is [`Token::End`].
pub(crate) fn lex(chars: &[char], issues: &mut Vec<Issue>) -> Vec<Lexeme> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        if let Some(blank) = blank(rest) {
            at += blank;
            continue;
        }
        match longest(rest) {
            Ok((token, length)) => {
                out.push(Lexeme { token, start: at as u32, end: (at + length) as u32 });
                at += length;
            }
            Err(length) => {
                let length = length.clamp(1, rest.len());
                let text: String = rest[..length].iter().collect();
                let text = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
                report(issues, at as u32, format!("Syntax error: token recognition error at: '{text}'"));
                at += length;
            }
        }
    }
    out.push(Lexeme { token: Token::End, start: chars.len() as u32, end: chars.len() as u32 });
    out
}

fn blank(rest: &[char]) -> Option<usize> {
    if rest.starts_with(&['/', '/']) {
        return Some(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()));
    }
    matches!(rest[0], '\t' | ' ' | '\r' | '\n' | '\u{c}').then_some(1)
}

/// The longest token the text begins with, or how far a token that was begun went wrong.
fn longest(rest: &[char]) -> Result<(Token, usize), usize> {
    let quoted = string(rest);
    if let Ok(found) = quoted {
        return Ok(found);
    }
    match rest[0] {
        '`' => escaped(rest),
        c if c.is_ascii_digit() || (c == '.' && rest.get(1).is_some_and(char::is_ascii_digit)) => Ok(number(rest)),
        c if c.is_ascii_alphabetic() || c == '_' => Ok(word(rest)),
        _ => symbol(rest, quoted.err().unwrap_or(1)),
    }
}

fn symbol(rest: &[char], gone: usize) -> Result<(Token, usize), usize> {
    let found = SYMBOLS.iter().find(|(text, _)| text.chars().zip(rest).filter(|(a, b)| a == *b).count() == text.len());
    found.map(|(text, token)| (*token, text.len())).ok_or(if matches!(rest[0], '=' | '&' | '|') { 2 } else { gone })
}

fn word(rest: &[char]) -> (Token, usize) {
    let length = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').count();
    let text: String = rest[..length].iter().collect();
    let token = match text.as_str() {
        "in" => Token::In,
        "true" => Token::True,
        "false" => Token::False,
        "null" => Token::Null,
        _ => Token::Identifier,
    };
    (token, length)
}

fn escaped(rest: &[char]) -> Result<(Token, usize), usize> {
    let inside = rest[1..].iter().take_while(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(**c)).count();
    match rest.get(inside + 1) {
        Some('`') if inside > 0 => Ok((Token::EscapedIdentifier, inside + 2)),
        _ => Err(inside + 2),
    }
}

fn digits(rest: &[char]) -> usize {
    rest.iter().take_while(|c| c.is_ascii_digit()).count()
}

fn number(rest: &[char]) -> (Token, usize) {
    if rest.starts_with(&['0', 'x']) {
        let hex = rest[2..].iter().take_while(|c| c.is_ascii_hexdigit()).count();
        if hex > 0 {
            return unsigned(rest, 2 + hex);
        }
    }
    let whole = digits(rest);
    let mut length = whole;
    if rest.get(length) == Some(&'.') {
        let fraction = digits(&rest[length + 1..]);
        length += if fraction > 0 { fraction + 1 } else { 0 };
    }
    length += exponent(&rest[length..]);
    if length > whole { (Token::Float, length) } else { unsigned(rest, whole) }
}

fn exponent(rest: &[char]) -> usize {
    if !matches!(rest.first(), Some('e' | 'E')) {
        return 0;
    }
    let sign = usize::from(matches!(rest.get(1), Some('+' | '-')));
    match digits(&rest[1 + sign..]) {
        0 => 0,
        count => 1 + sign + count,
    }
}

fn unsigned(rest: &[char], length: usize) -> (Token, usize) {
    if matches!(rest.get(length), Some('u' | 'U')) { (Token::Uint, length + 1) } else { (Token::Int, length) }
}

/// A string or bytes literal with its prefix; the error says how far it went.
fn string(rest: &[char]) -> Result<(Token, usize), usize> {
    let mut prefix = 0;
    let bytes = matches!(rest[0], 'b' | 'B');
    prefix += usize::from(bytes);
    let raw = matches!(rest.get(prefix), Some('r' | 'R'));
    prefix += usize::from(raw);
    let Some(&quote @ ('"' | '\'')) = rest.get(prefix) else { return Err(1) };
    let body = &rest[prefix..];
    let length = match body.starts_with(&[quote, quote, quote]) {
        true => long_string(body, quote, raw).or_else(|gone| if gone > 2 { Ok(2) } else { Err(gone) }),
        false => short_string(body, quote, raw),
    };
    let token = if bytes { Token::Bytes } else { Token::String };
    length.map(|length| (token, prefix + length)).map_err(|gone| prefix + gone)
}

fn long_string(body: &[char], quote: char, raw: bool) -> Result<usize, usize> {
    let mut at = 3;
    while at < body.len() {
        if body[at..].starts_with(&[quote, quote, quote]) {
            return Ok(at + 3);
        }
        at += if body[at] == '\\' && !raw { escape(&body[at..]).map_err(|gone| at + gone)? } else { 1 };
    }
    Err(at)
}

fn short_string(body: &[char], quote: char, raw: bool) -> Result<usize, usize> {
    let mut at = 1;
    while at < body.len() {
        match body[at] {
            c if c == quote => return Ok(at + 1),
            '\n' | '\r' => return Err(at + 1),
            '\\' if !raw => at += escape(&body[at..]).map_err(|gone| at + gone)?,
            _ => at += 1,
        }
    }
    Err(at)
}

/// The length of an escape sequence, or how far it went.
fn escape(rest: &[char]) -> Result<usize, usize> {
    let count = match rest.get(1) {
        Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => return Ok(2),
        Some('0'..='3') => return run(rest, 2, |c| ('0'..='7').contains(&c)),
        Some('x' | 'X') => 2,
        Some('u') => 4,
        Some('U') => 8,
        _ => return Err(2),
    };
    run(rest, count, |c| c.is_ascii_hexdigit())
}

fn run(rest: &[char], count: usize, digit: impl Fn(char) -> bool) -> Result<usize, usize> {
    let found = rest[2..].iter().take(count).take_while(|c| digit(**c)).count();
    if found == count { Ok(2 + count) } else { Err(3 + found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        #[track_caller]
        fn check(text: &str, expect: &str) {
            let chars: Vec<char> = text.chars().collect();
            let mut issues = Vec::new();
            let mut shown: Vec<String> = lex(&chars, &mut issues).iter().map(|l| l.token.shown()).collect();
            shown.extend(issues.into_iter().map(|issue| issue.message));
            assert_eq!(shown.join(" "), expect);
        }
        check("a.b == 1", "IDENTIFIER '.' IDENTIFIER '==' NUM_INT <EOF>");
        check("1.5e3 .5 0x1Fu 2u 1.x", "NUM_FLOAT NUM_FLOAT NUM_UINT NUM_UINT NUM_INT '.' IDENTIFIER <EOF>");
        check(r#"r'\' b"x\x00" '''a'b''' "" // c"#, "STRING BYTES STRING STRING <EOF>");
        check("x in y", "IDENTIFIER 'in' IDENTIFIER <EOF>");
        check("a | b", "IDENTIFIER IDENTIFIER <EOF> Syntax error: token recognition error at: '| '");
        check("'abc", "<EOF> Syntax error: token recognition error at: ''abc'");
        check("1 + $", "NUM_INT '+' <EOF> Syntax error: token recognition error at: '$'");
        check("a.`b-c`", "IDENTIFIER '.' ESC_IDENTIFIER <EOF>");
    }
}
