//! Syntax errors, found and told as the parser that is generated from CEL's grammar does.
//!
//! Runs once a text is known to be wrong, over its tokens alone: one function a rule of the grammar, and at each place
//! the number the generated parser gives it, what may come there and what may come after. Errors are mended as there: a
//! superfluous token is passed over, a missing one supposed, and otherwise everything skipped up to what a rule that is
//! begun could go on with; until the next token matches nothing more is told. Which alternative of a rule is taken where
//! one token does not decide follows from the grammar, and is written out.

mod rules;
mod tokens;

use crate::error::Issue;
use crate::lexer::{Lexeme, Token};
use crate::source::report;
use std::collections::HashSet;
use tokens::{END, END_OF_RULE, Set, set};

/// So often an error is mended.
const RECOVERIES_MAX: u32 = 30;
/// So many tokens are skipped for one.
const SKIPPED_MAX: u32 = 256;

/// Why a rule was left.
enum Failure {
    /// The token at this place is none of what may come.
    Mismatch(Set),
    /// No alternative begins with the tokens from one place to another.
    NoViable(usize, usize),
    /// The text was given up.
    Stop,
}

type Outcome = Result<(), Failure>;

/// The rules of the deepest text need more stack than a worker's thread has left.
const STACK: usize = 64 << 20;

/// The errors of a text that is not of the grammar.
pub(super) fn errors(chars: &[char], tokens: &[Lexeme], issues: &mut Vec<Issue>) {
    let told = std::thread::scope(|scope| {
        let walk = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || walk(chars, tokens, issues));
        walk.is_ok_and(|thread| thread.join().is_ok())
    });
    if !told {
        let message = "Syntax error: the text could not be looked at closer".to_owned();
        issues.push(Issue { offset: None, message });
    }
}

fn walk(chars: &[char], tokens: &[Lexeme], issues: &mut Vec<Issue>) {
    let mut walk = Walk {
        chars,
        tokens,
        issues,
        at: 0,
        place: 0,
        here: 0,
        callers: Vec::new(),
        mending: false,
        last: None,
        recoveries: 0,
        depth: 0,
    };
    if let Err(failure @ (Failure::Mismatch(_) | Failure::NoViable(..))) = walk.start() {
        walk.tell(&failure);
    }
}

struct Walk<'w> {
    chars: &'w [char],
    tokens: &'w [Lexeme],
    issues: &'w mut Vec<Issue>,
    at: usize,
    /// The place in the grammar, and what may come there.
    place: u16,
    here: Set,
    /// What may follow each rule that is begun, in the rule that began it.
    callers: Vec<Set>,
    /// After an error, until a token matches.
    mending: bool,
    /// Where the last error was mended, at which places of the grammar.
    last: Option<(usize, HashSet<u16>)>,
    recoveries: u32,
    depth: usize,
}

/// What is done at a place before a choice where none of what may come is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// At its beginning: it fails, unless one token is superfluous.
    Begin,
    /// Each time a loop begins again: tokens are skipped.
    Again,
}

impl Walk<'_> {
    fn ahead(&self, count: usize) -> Token {
        self.tokens[(self.at + count).min(self.tokens.len() - 1)].token
    }

    fn comes(&self, tokens: Set) -> bool {
        self.comes_after(0, tokens)
    }

    fn comes_after(&self, count: usize, tokens: Set) -> bool {
        tokens & set(&[self.ahead(count)]) != 0
    }

    fn consume(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    /// What may come, with what may follow the rules that may end.
    fn expected(&self, mut following: Set) -> Set {
        let mut all = following & !END_OF_RULE;
        for follow in self.callers.iter().rev() {
            if following & END_OF_RULE == 0 {
                return all;
            }
            following = *follow;
            all |= following & !END_OF_RULE;
        }
        if following & END_OF_RULE != 0 { all | END } else { all }
    }

    fn rule(&mut self, follow: Set, body: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        self.callers.push(follow);
        let outcome = match body(self) {
            Err(failure @ (Failure::Mismatch(_) | Failure::NoViable(..))) => {
                self.tell(&failure);
                self.recover()
            }
            other => other,
        };
        self.callers.pop();
        outcome
    }

    fn matched(&mut self) {
        self.mending = false;
        self.last = None;
    }

    /// Takes one of the tokens at a place; `next` may come after it.
    fn take(&mut self, place: u16, tokens: Set, next: Set) -> Outcome {
        (self.place, self.here) = (place, tokens);
        if self.comes(tokens) {
            self.matched();
            self.consume();
            return Ok(());
        }
        self.count_recovery()?;
        if self.delete_one() {
            self.consume();
        } else if self.comes(self.expected(next)) {
            let missing = self.expected(self.here);
            self.tell_of(|walk| format!("missing {} at {}", shown(missing), walk.quoted(walk.at)));
        } else {
            return Err(Failure::Mismatch(self.expected(self.here)));
        }
        Ok(())
    }

    /// As [`Walk::take`] for a token that may be left out.
    fn maybe(&mut self, place: u16, tokens: Set, next: Set) -> Outcome {
        if self.comes(tokens) { self.take(place, tokens, next) } else { Ok(()) }
    }

    /// Looks before a choice whether one of what may come is there.
    fn sync(&mut self, place: u16, next: Set, choice: Choice) -> Outcome {
        (self.place, self.here) = (place, next);
        if self.mending || next & END_OF_RULE != 0 || self.comes(next) {
            return Ok(());
        }
        if choice == Choice::Begin {
            return if self.delete_one() { Ok(()) } else { Err(Failure::Mismatch(self.expected(next))) };
        }
        self.tell_superfluous();
        self.skip_to(self.expected(next) | self.to_go_on(), u32::MAX)
    }

    /// Passes over a token that is followed by what may come here.
    fn delete_one(&mut self) -> bool {
        let superfluous = self.comes_after(1, self.expected(self.here));
        if superfluous {
            self.tell_superfluous();
            self.consume();
            self.matched();
        }
        superfluous
    }

    /// What the rules that are begun could go on with.
    fn to_go_on(&self) -> Set {
        self.callers.iter().fold(0, |all, follow| all | follow) & !END_OF_RULE
    }

    fn recover(&mut self) -> Outcome {
        self.count_recovery()?;
        let mut left = SKIPPED_MAX;
        let again = self.last.as_ref().is_some_and(|(at, places)| *at == self.at && places.contains(&self.place));
        if again {
            self.consume();
            left -= 1;
        }
        let mut places = self.last.take().map(|(_, places)| places).unwrap_or_default();
        places.insert(self.place);
        self.last = Some((self.at, places));
        self.skip_to(self.to_go_on(), left)
    }

    fn skip_to(&mut self, tokens: Set, mut left: u32) -> Outcome {
        while self.ahead(0) != Token::End && !self.comes(tokens) {
            if left == 0 {
                let message = format!("error recovery token lookahead limit exceeded: {SKIPPED_MAX}");
                self.issues.push(Issue { offset: None, message });
                return Err(Failure::Stop);
            }
            left -= 1;
            self.consume();
        }
        Ok(())
    }

    fn count_recovery(&mut self) -> Outcome {
        if self.recoveries == RECOVERIES_MAX {
            let message = format!("Syntax error: error recovery attempt limit exceeded: {RECOVERIES_MAX}");
            report(self.issues, self.tokens[self.at].start, message);
            return Err(Failure::Stop);
        }
        self.recoveries += 1;
        Ok(())
    }

    // What is told

    /// Tells something of the token that comes, unless an error is being mended.
    fn tell_of(&mut self, message: impl FnOnce(&Self) -> String) {
        if !std::mem::replace(&mut self.mending, true) {
            let message = format!("Syntax error: {}", message(self));
            report(self.issues, self.tokens[self.at].start, message);
        }
    }

    fn tell_superfluous(&mut self) {
        let expected = self.expected(self.here);
        self.tell_of(|walk| format!("extraneous input {} expecting {}", walk.quoted(walk.at), shown(expected)));
    }

    fn tell(&mut self, failure: &Failure) {
        match failure {
            Failure::Mismatch(expected) => {
                self.tell_of(|walk| {
                    format!("mismatched input {} expecting {}", walk.quoted(walk.at), shown(*expected))
                });
            }
            Failure::NoViable(from, to) if !std::mem::replace(&mut self.mending, true) => {
                let message = self.no_viable(*from, *to);
                report(self.issues, self.tokens[*to].start, format!("Syntax error: {message}"));
            }
            Failure::NoViable(..) | Failure::Stop => {}
        }
    }

    fn no_viable(&self, from: usize, to: usize) -> String {
        if self.tokens[from].token == Token::End {
            return "no viable alternative at input '<EOF>'".into();
        }
        let text = self.between(from, to);
        match text.char_indices().nth(1).map(|(at, _)| text.split_at(at)) {
            Some((_, word @ ("true" | "false" | "null"))) => format!("mismatched input '{word}' expecting IDENTIFIER"),
            _ => format!("no viable alternative at input {}", escaped(&text)),
        }
    }

    /// The text from one token to another, without what is no token and no blank.
    fn between(&self, from: usize, to: usize) -> String {
        let (mut out, mut done) = (String::new(), self.tokens[from].start as usize);
        for lexeme in &self.tokens[from..=to] {
            let (start, end) = (lexeme.start as usize, lexeme.end as usize);
            let between: String = self.chars[done..start].iter().collect();
            if between.trim_start().starts_with("//") || between.chars().all(char::is_whitespace) {
                out.push_str(&between);
            }
            out.extend(&self.chars[start..end]);
            done = end;
        }
        out
    }

    fn quoted(&self, at: usize) -> String {
        let lexeme = self.tokens[at];
        let text: String = self.chars[lexeme.start as usize..lexeme.end as usize].iter().collect();
        if lexeme.token == Token::End { "'<EOF>'".into() } else { escaped(&text) }
    }
}

fn escaped(text: &str) -> String {
    format!("'{}'", text.replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r"))
}

fn shown(tokens: Set) -> String {
    let names: Vec<String> =
        Token::ALL.iter().filter(|token| tokens & set(&[**token]) != 0).map(|token| token.shown()).collect();
    if names.len() == 1 { names.concat() } else { format!("{{{}}}", names.join(", ")) }
}
