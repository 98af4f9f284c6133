//! Tokens to a tree, by recursive descent. The first token that is wrong ends the parse; what is told of it, and of
//! what else is wrong, is found by `syntax`.

mod collections;
mod syntax;

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

/// The parse was given up: at a wrong token, or with an issue that says why.
enum GaveUp {
    /// A token cannot stand where it stands.
    WrongToken,
    /// The text nests too deeply.
    TooDeep,
}

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
        Err(GaveUp::WrongToken) => {
            syntax::errors(parser.chars, &parser.tokens, &mut parser.issues);
            Err(parser.issues)
        }
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
        self.expect(Token::End)?;
        Ok(root)
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

    /// Takes a token that must come now.
    fn expect(&mut self, token: Token) -> Parsed<Lexeme> {
        self.accept(token).ok_or(GaveUp::WrongToken)
    }

    fn error(&mut self, at: u32, message: impl Into<String>) {
        report(&mut self.issues, at, message);
    }

    fn too_deep(&mut self) -> GaveUp {
        let message = format!("expression recursion limit exceeded: {MAX_RECURSION_DEPTH}");
        self.issues.push(Issue { offset: None, message });
        GaveUp::TooDeep
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
                self.expect(Token::Colon)?;
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
            return terms.pop().ok_or(GaveUp::WrongToken);
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
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        let below = operand.height;
        Ok(self.node(first.start, below, Expr::Call { function: function.into(), target: None, args: vec![operand] }))
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
            return Err(GaveUp::WrongToken);
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
        loop {
            args.push(self.expr()?);
            if self.accept(Token::Comma).is_none() {
                self.expect(Token::CloseParen)?;
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
        let index = self.expr()?;
        self.expect(Token::CloseBracket)?;
        self.call(open.start, if optional { "_[?_]" } else { "_[_]" }, vec![operand, index])
    }

    fn primary(&mut self) -> Parsed<Node> {
        let first = self.peek();
        match first.token {
            Token::Identifier | Token::Dot => self.named(),
            Token::OpenParen => {
                self.next += 1;
                let inside = self.expr()?;
                self.expect(Token::CloseParen)?;
                Ok(inside)
            }
            Token::OpenBracket => self.list(),
            Token::OpenBrace => self.map(),
            _ => self.literal(),
        }
    }

    fn named(&mut self) -> Parsed<Node> {
        let dot = self.accept(Token::Dot);
        let name = self.expect(Token::Identifier)?;
        if let Some(length) = self.message_name() {
            return self.message(name, length);
        }
        let text = self.text(name);
        if is_reserved(&text) {
            self.error(dot.unwrap_or(name).start, format!("reserved identifier: {text}"));
        }
        if let Some(open) = self.accept(Token::OpenParen) {
            let from = self.next;
            let args = self.arguments().inspect_err(|_| self.unfinished_has(&text, from));
            return self.call_or_macro(open.start, &text, None, args?);
        }
        // A leading dot passes over what loops name.
        let text = if dot.is_some() { format!(".{text}") } else { text };
        Ok(self.node(name.start, 0, Expr::Ident(text)))
    }

    /// What was given to `has` when a token was wrong is judged, too: a name, or one with a field that has no name.
    fn unfinished_has(&mut self, function: &str, from: usize) {
        let given: Vec<Token> = self.tokens[from..self.next].iter().map(|lexeme| lexeme.token).collect();
        let names = given.iter().enumerate();
        let chain = names.clone().all(|(i, t)| *t == if i % 2 == 0 { Token::Identifier } else { Token::Dot });
        if function == "has" && chain && (given.len() == 1 || (given.len() % 2 == 0 && !given.is_empty())) {
            self.error(self.tokens[from].start, "invalid argument to has() macro");
        }
    }

    fn literal(&mut self) -> Parsed<Node> {
        let first = self.take();
        let negative = first.token == Token::Minus;
        let lexeme = if negative { self.take() } else { first };
        if negative && !matches!(lexeme.token, Token::Int | Token::Float) {
            return Err(GaveUp::WrongToken);
        }
        let text = self.text(lexeme);
        let value = match lexeme.token {
            Token::Int => literal::int(&text, negative),
            Token::Uint => literal::uint(&text),
            Token::Float => literal::double(&text, negative),
            Token::String => literal::string(&text),
            Token::Bytes => literal::bytes(&text),
            Token::True => Ok(crate::Value::Bool(true)),
            Token::False => Ok(crate::Value::Bool(false)),
            Token::Null => Ok(crate::Value::Null),
            _ => return Err(GaveUp::WrongToken),
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
