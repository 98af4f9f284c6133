//! Tokens to a tree, by recursive descent; syntax errors in the words of the grammar's generated parser.
//!
//! The first syntax error ends the parse, save for one superfluous token, which is passed over as upstream does.

mod collections;
mod errors;

use self::errors::{expected_after_operand, follows_close};
use crate::ast::{Expr, Node};
use crate::error::Issue;
use crate::escape::is_reserved;
use crate::lexer::{Lexeme, Token, lex};
use crate::limits::{MAX_EXPRESSION_CODE_POINTS, MAX_RECURSION_DEPTH};
use crate::literal;
use crate::macros::{Expansion, Macros};
use crate::source::report;

/// A parsed text.
pub(crate) struct Tree {
    pub root: Node,
    /// One more than the highest number of a node.
    pub nodes: u32,
}

/// What an operand may begin with.
const OPERAND: [Token; 15] = [
    Token::OpenBracket,
    Token::OpenBrace,
    Token::OpenParen,
    Token::Dot,
    Token::Minus,
    Token::Not,
    Token::True,
    Token::False,
    Token::Null,
    Token::Float,
    Token::Int,
    Token::Uint,
    Token::String,
    Token::Bytes,
    Token::Identifier,
];
/// The parse was given up; the issue is recorded.
struct GaveUp;

type Parsed<T> = Result<T, GaveUp>;

/// Parses a text, or says what is wrong with it.
pub(crate) fn parse(text: &str, macros: &Macros) -> Result<Tree, Vec<Issue>> {
    let chars: Vec<char> = text.chars().collect();
    let mut issues = Vec::new();
    if chars.len() > MAX_EXPRESSION_CODE_POINTS {
        let message = format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_EXPRESSION_CODE_POINTS}",
            chars.len()
        );
        return Err(vec![Issue { offset: None, message }]);
    }
    let tokens = lex(&chars, &mut issues);
    let mut parser = Parser { chars: &chars, tokens, next: 0, issues, ids: 0, depth: 0, macros };
    let root = parser.start();
    let nodes = parser.ids;
    match root {
        Ok(root) if parser.issues.is_empty() => Ok(Tree { root, nodes }),
        _ => Err(parser.issues),
    }
}

struct Parser<'p> {
    chars: &'p [char],
    tokens: Vec<Lexeme>,
    next: usize,
    issues: Vec<Issue>,
    ids: u32,
    depth: usize,
    macros: &'p Macros,
}

impl Parser<'_> {
    fn start(&mut self) -> Parsed<Node> {
        let root = self.expr()?;
        let extra = self.peek();
        if extra.token == Token::End {
            return Ok(root);
        }
        if self.ahead(1).token == Token::End {
            self.syntax(extra, "extraneous input", &[Token::End]);
        } else {
            self.syntax(extra, "mismatched input", &expected_after_operand(extra.token, Token::End));
        }
        Err(GaveUp)
    }

    // Tokens

    fn peek(&self) -> Lexeme {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> Lexeme {
        let at = (self.next + count).min(self.tokens.len() - 1);
        self.tokens[at]
    }

    fn take(&mut self) -> Lexeme {
        let lexeme = self.peek();
        self.next += 1;
        lexeme
    }

    fn accept(&mut self, token: Token) -> Option<Lexeme> {
        (self.peek().token == token).then(|| self.take())
    }

    fn text(&self, lexeme: Lexeme) -> String {
        self.chars[lexeme.start as usize..lexeme.end as usize].iter().collect()
    }

    /// Takes a token that must come now. `mine` says what else could, where the grammar decides before it matches.
    fn expect(&mut self, token: Token, mine: Option<&[Token]>) -> Parsed<Lexeme> {
        let got = self.peek();
        if got.token == token {
            return Ok(self.take());
        }
        if self.ahead(1).token == token {
            self.syntax(got, "extraneous input", mine.unwrap_or(&[token]));
            self.next += 1;
            return Ok(self.take());
        }
        match mine {
            Some(expected) => self.syntax(got, "mismatched input", expected),
            None if follows_close(got.token, token) => {
                let message = format!("Syntax error: missing {} at {}", token.shown(), self.quoted(got));
                report(&mut self.issues, got.start, message);
            }
            None => self.syntax(got, "mismatched input", &expected_after_operand(got.token, token)),
        }
        Err(GaveUp)
    }

    // Nodes

    fn node(&mut self, at: u32, below: u16, expr: Expr) -> Node {
        self.ids += 1;
        Node { id: self.ids - 1, at, height: below, expr: Box::new(expr) }
    }

    /// A node that counts for the limit on recursion.
    fn deeper(&mut self, at: u32, below: u16, expr: Expr) -> Parsed<Node> {
        if usize::from(below) >= MAX_RECURSION_DEPTH {
            return Err(self.too_deep());
        }
        Ok(self.node(at, below + 1, expr))
    }

    fn call(&mut self, at: u32, function: &str, args: Vec<Node>) -> Parsed<Node> {
        let below = args.iter().map(|arg| arg.height).max().unwrap_or(0);
        self.deeper(at, below, Expr::Call { function: function.into(), target: None, args })
    }

    // Grammar

    fn expr(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MAX_RECURSION_DEPTH {
            return Err(self.too_deep());
        }
        let condition = self.logic(Token::Or, "_||_")?;
        let result = match self.accept(Token::Question) {
            None => condition,
            Some(op) => {
                let yes = self.logic(Token::Or, "_||_")?;
                self.expect(Token::Colon, None)?;
                let no = self.expr()?;
                self.call(op.start, "_?_:_", vec![condition, yes, no])?
            }
        };
        self.depth -= 1;
        Ok(result)
    }

    /// A chain of `||` or of `&&`, made into a balanced tree.
    fn logic(&mut self, token: Token, function: &str) -> Parsed<Node> {
        let mut terms = vec![self.term(token)?];
        let mut ops = Vec::new();
        while let Some(op) = self.accept(token) {
            ops.push(op.start);
            terms.push(self.term(token)?);
        }
        if ops.is_empty() {
            return terms.pop().ok_or(GaveUp);
        }
        let below = terms.iter().map(|term| term.height).max().unwrap_or(0);
        let at = ops[ops.len() / 2];
        Ok(self.node(at, below, Expr::Call { function: function.into(), target: None, args: terms }))
    }

    fn term(&mut self, token: Token) -> Parsed<Node> {
        if token == Token::Or { self.logic(Token::And, "_&&_") } else { self.binary(1) }
    }

    /// Relations (1), sums (2) and products (3), all left-associative.
    fn binary(&mut self, level: u8) -> Parsed<Node> {
        let mut left = self.unary()?;
        while let Some((function, binds)) = operator(self.peek().token)
            && binds >= level
        {
            let op = self.take();
            let right = self.binary(binds + 1)?;
            left = self.call(op.start, function, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Node> {
        let first = self.peek();
        let function = match first.token {
            Token::Not => "!_",
            Token::Minus if !matches!(self.ahead(1).token, Token::Int | Token::Float) => "-_",
            _ => return self.member(),
        };
        let mut count = 0;
        while self.accept(first.token).is_some() {
            count += 1;
            // The sign of a number belongs to the number.
            if first.token == Token::Minus
                && self.peek().token == Token::Minus
                && matches!(self.ahead(1).token, Token::Int | Token::Float)
            {
                break;
            }
        }
        if self.peek().token == Token::End && count == 1 {
            return Err(self.no_operand(first));
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        let below = operand.height;
        Ok(self.node(first.start, below, Expr::Call { function: function.into(), target: None, args: vec![operand] }))
    }

    /// The text ends after a sign, of which the grammar has two readings.
    fn no_operand(&mut self, sign: Lexeme) -> GaveUp {
        let end = self.peek();
        if sign.token == Token::Not {
            self.syntax(end, "extraneous input", &OPERAND);
        } else {
            self.no_viable(sign, end);
            self.syntax(end, "mismatched input", &OPERAND);
        }
        GaveUp
    }

    /// Fails where the text ends and not only an operand could come.
    fn not_at_end(&mut self, other: Token) -> Parsed<()> {
        if self.peek().token != Token::End {
            return Ok(());
        }
        let mut expected = OPERAND.to_vec();
        expected.push(other);
        self.syntax(self.peek(), "mismatched input", &expected);
        Err(GaveUp)
    }

    fn member(&mut self) -> Parsed<Node> {
        let mut node = self.primary()?;
        loop {
            let op = self.peek();
            node = match op.token {
                Token::Dot => self.select(node)?,
                Token::OpenBracket => self.index(node)?,
                _ => return Ok(node),
            };
        }
    }

    fn select(&mut self, operand: Node) -> Parsed<Node> {
        let dot = self.take();
        let optional = self.accept(Token::Question).is_some();
        let name = self.peek();
        if !matches!(name.token, Token::Identifier | Token::EscapedIdentifier) {
            return Err(self.no_viable(dot, name));
        }
        self.next += 1;
        if name.token == Token::Identifier && !optional && self.peek().token == Token::OpenParen {
            return self.member_call(operand, name);
        }
        if name.token == Token::EscapedIdentifier {
            self.error(name.start, "unsupported syntax: '`'");
        }
        let (field, below) = (self.text(name), operand.height);
        if optional {
            let text = self.node(name.start, 0, Expr::Literal(crate::Value::text(field)));
            return self.deeper(
                dot.start,
                below,
                Expr::Call { function: "_?._".into(), target: None, args: vec![operand, text] },
            );
        }
        self.deeper(dot.start, below, Expr::Select { operand, field, test: false })
    }

    fn member_call(&mut self, target: Node, name: Lexeme) -> Parsed<Node> {
        let open = self.take();
        let args = self.arguments()?;
        let function = self.text(name);
        self.call_or_macro(open.start, &function, Some(target), args)
    }

    fn arguments(&mut self) -> Parsed<Vec<Node>> {
        let mut args = Vec::new();
        if self.accept(Token::CloseParen).is_some() {
            return Ok(args);
        }
        self.not_at_end(Token::CloseParen)?;
        loop {
            args.push(self.expr()?);
            if self.accept(Token::Comma).is_none() {
                self.expect(Token::CloseParen, None)?;
                return Ok(args);
            }
        }
    }

    fn call_or_macro(&mut self, at: u32, function: &str, target: Option<Node>, args: Vec<Node>) -> Parsed<Node> {
        let below = args.iter().chain(&target).map(|node| node.height).max().unwrap_or(0);
        let expr = match self.macros.expand(function, target, args) {
            Expansion::Call(target, args) => Expr::Call { function: function.into(), target, args },
            Expansion::Expanded(expr) => expr,
            Expansion::Wrong { at, message } => {
                self.error(at, message);
                Expr::Literal(crate::Value::Null)
            }
        };
        self.deeper(at, below, expr)
    }

    fn index(&mut self, operand: Node) -> Parsed<Node> {
        let open = self.take();
        let optional = self.accept(Token::Question).is_some();
        if !optional {
            self.not_at_end(Token::Question)?;
        }
        let index = self.expr()?;
        self.expect(Token::CloseBracket, None)?;
        self.call(open.start, if optional { "_[?_]" } else { "_[_]" }, vec![operand, index])
    }

    fn primary(&mut self) -> Parsed<Node> {
        let first = self.peek();
        match first.token {
            Token::Identifier | Token::Dot => self.named(),
            Token::OpenParen => {
                self.next += 1;
                let inside = self.expr()?;
                self.expect(Token::CloseParen, None)?;
                Ok(inside)
            }
            Token::OpenBracket => self.list(),
            Token::OpenBrace => self.map(),
            token if OPERAND.contains(&token) && token != Token::Not => self.literal(),
            _ if OPERAND.contains(&self.ahead(1).token) => {
                self.syntax(first, "extraneous input", &OPERAND);
                self.next += 1;
                self.primary()
            }
            _ => {
                self.syntax(first, "mismatched input", &OPERAND);
                Err(GaveUp)
            }
        }
    }

    fn named(&mut self) -> Parsed<Node> {
        let dot = self.accept(Token::Dot);
        let name = self.peek();
        if name.token != Token::Identifier {
            return Err(self.no_viable(dot.unwrap_or(name), name));
        }
        self.next += 1;
        if let Some(length) = self.message_name() {
            return self.message(name, length);
        }
        let text = self.text(name);
        if is_reserved(&text) {
            self.error(dot.unwrap_or(name).start, format!("reserved identifier: {text}"));
        }
        if let Some(open) = self.accept(Token::OpenParen) {
            let args = self.arguments()?;
            return self.call_or_macro(open.start, &text, None, args);
        }
        Ok(self.node(name.start, 0, Expr::Ident(text)))
    }

    fn literal(&mut self) -> Parsed<Node> {
        let first = self.take();
        let negative = first.token == Token::Minus;
        let lexeme = if negative { self.take() } else { first };
        let text = self.text(lexeme);
        let value = match lexeme.token {
            Token::Int => literal::int(&text, negative),
            Token::Uint => literal::uint(&text),
            Token::Float => literal::double(&text, negative),
            Token::String => literal::string(&text),
            Token::Bytes => literal::bytes(&text),
            Token::True => Ok(crate::Value::Bool(true)),
            Token::False => Ok(crate::Value::Bool(false)),
            _ => Ok(crate::Value::Null),
        };
        let value = value.unwrap_or_else(|message| {
            self.error(first.start, message);
            crate::Value::Null
        });
        Ok(self.node(first.start, 0, Expr::Literal(value)))
    }
}

fn operator(token: Token) -> Option<(&'static str, u8)> {
    Some(match token {
        Token::Less => ("_<_", 1),
        Token::LessEquals => ("_<=_", 1),
        Token::GreaterEquals => ("_>=_", 1),
        Token::Greater => ("_>_", 1),
        Token::Equals => ("_==_", 1),
        Token::NotEquals => ("_!=_", 1),
        Token::In => ("@in", 1),
        Token::Plus => ("_+_", 2),
        Token::Minus => ("_-_", 2),
        Token::Star => ("_*_", 3),
        Token::Slash => ("_/_", 3),
        Token::Percent => ("_%_", 3),
        _ => return None,
    })
}
