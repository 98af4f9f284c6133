//! The rules of the grammar, each a function; the numbers are those of the generated parser's places.

use super::tokens::*;
use super::{Choice, Failure, Outcome, Walk};
use crate::error::Issue;
use crate::lexer::Token;
use crate::limits::MAX_RECURSION_DEPTH;

impl Walk<'_> {
    pub(super) fn start(&mut self) -> Outcome {
        self.expr(END)?;
        self.take(35, END, END_OF_RULE)
    }

    fn expr(&mut self, follow: Set) -> Outcome {
        self.depth += 1;
        if self.depth > MAX_RECURSION_DEPTH {
            let message = format!("expression recursion limit exceeded: {MAX_RECURSION_DEPTH}");
            self.issues.push(Issue { offset: None, message });
            return Err(Failure::Stop);
        }
        let outcome = self.rule(follow, |walk| {
            walk.conditional_or(QUESTION | END_OF_RULE)?;
            if walk.comes(QUESTION) {
                walk.take(38, QUESTION, OPERAND)?;
                walk.conditional_or(COLON)?;
                walk.take(40, COLON, OPERAND)?;
                walk.expr(END_OF_RULE)?;
            }
            Ok(())
        });
        self.depth -= 1;
        outcome
    }

    fn conditional_or(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.conditional_and(OR | END_OF_RULE)?;
            while walk.comes(OR) {
                walk.take(46, OR, OPERAND)?;
                walk.conditional_and(OR | END_OF_RULE)?;
            }
            Ok(())
        })
    }

    fn conditional_and(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.relation(0, AND | END_OF_RULE)?;
            while walk.comes(AND) {
                walk.take(54, AND, OPERAND)?;
                walk.relation(0, AND | END_OF_RULE)?;
            }
            Ok(())
        })
    }

    fn relation(&mut self, binds: u8, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.calc(0, AFTER_CALC)?;
            while walk.comes(RELATION) && binds <= 1 {
                walk.take(65, RELATION, OPERAND)?;
                walk.relation(2, AFTER_CALC)?;
            }
            Ok(())
        })
    }

    fn calc(&mut self, binds: u8, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.unary(AFTER_UNARY)?;
            loop {
                if walk.comes(PRODUCT) && binds <= 2 {
                    walk.take(76, PRODUCT, OPERAND)?;
                    walk.calc(3, AFTER_UNARY)?;
                } else if walk.comes(SUM) && binds <= 1 {
                    walk.take(79, SUM, OPERAND)?;
                    walk.calc(2, AFTER_UNARY)?;
                } else {
                    return Ok(());
                }
            }
        })
    }

    fn unary(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.sync(99, OPERAND, Choice::Begin)?;
            if walk.comes(NOT) {
                loop {
                    walk.take(87, NOT, NOT | PRIMARY)?;
                    walk.sync(90, NOT | PRIMARY, Choice::Again)?;
                    if !walk.comes(NOT) {
                        break;
                    }
                }
            } else if walk.comes(MINUS) && !walk.comes_after(1, NUMBER) {
                walk.viable(1, PRIMARY)?;
                loop {
                    walk.take(93, MINUS, PRIMARY)?;
                    walk.sync(96, PRIMARY, Choice::Again)?;
                    walk.viable(0, PRIMARY)?;
                    if !walk.comes(MINUS) {
                        break;
                    }
                    walk.viable(1, PRIMARY)?;
                }
            } else {
                walk.viable(0, OPERAND)?;
            }
            walk.member(END_OF_RULE)
        })
    }

    /// Fails unless one of the tokens comes so many tokens ahead.
    fn viable(&self, count: usize, tokens: Set) -> Outcome {
        match self.comes_after(count, tokens) {
            true => Ok(()),
            false => Err(Failure::NoViable(self.at, (self.at + count).min(self.tokens.len() - 1))),
        }
    }

    fn member(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.primary(AFTER_MEMBER)?;
            loop {
                if walk.comes(OPEN_BRACKET) {
                    walk.index()?;
                } else if !walk.comes(DOT) {
                    return Ok(());
                } else if walk.comes_after(1, NAME) && walk.comes_after(2, OPEN_PAREN) {
                    walk.take(111, DOT, NAME)?;
                    walk.take(112, NAME, OPEN_PAREN)?;
                    walk.arguments([113, 115, 117], AFTER_MEMBER)?;
                } else {
                    walk.viable(1, FIELD)?;
                    walk.take(105, DOT, FIELD)?;
                    walk.sync(107, FIELD, Choice::Begin)?;
                    walk.maybe(106, QUESTION, FIELD_NAME)?;
                    walk.escape_ident(AFTER_MEMBER)?;
                }
            }
        })
    }

    fn index(&mut self) -> Outcome {
        self.take(119, OPEN_BRACKET, ELEMENT)?;
        self.sync(121, ELEMENT, Choice::Begin)?;
        self.maybe(120, QUESTION, OPERAND)?;
        self.expr(CLOSE_BRACKET)?;
        self.take(124, CLOSE_BRACKET, AFTER_MEMBER)
    }

    /// Arguments in parentheses: the places of `(`, of the choice and of `)`.
    fn arguments(&mut self, [open, choice, close]: [u16; 3], next: Set) -> Outcome {
        self.take(open, OPEN_PAREN, OPERAND | CLOSE_PAREN)?;
        self.sync(choice, OPERAND | CLOSE_PAREN, Choice::Begin)?;
        if self.comes(OPERAND) {
            self.expr_list(CLOSE_PAREN)?;
        }
        self.take(close, CLOSE_PAREN, next)
    }

    fn primary(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.sync(184, PRIMARY, Choice::Begin)?;
            match walk.ahead(0) {
                Token::Dot | Token::Identifier => walk.named(),
                Token::OpenParen => {
                    walk.take(144, OPEN_PAREN, OPERAND)?;
                    walk.expr(CLOSE_PAREN)?;
                    walk.take(146, CLOSE_PAREN, END_OF_RULE)
                }
                Token::OpenBracket => {
                    walk.elements([148, 150, 153, 152, 155], [OPEN_BRACKET, ELEMENT, CLOSE_BRACKET], Self::list_init)
                }
                Token::OpenBrace => {
                    let list = Self::map_initializer_list;
                    walk.elements([156, 158, 161, 160, 163], [OPEN_BRACE, ELEMENT, CLOSE_BRACE], list)
                }
                _ => {
                    walk.viable(0, LITERAL)?;
                    walk.literal(END_OF_RULE)
                }
            }
        })
    }

    /// A name, a call or a message: what comes after the names decides.
    fn named(&mut self) -> Outcome {
        let leading = usize::from(self.comes(DOT));
        self.viable(leading, NAME)?;
        let mut last = leading;
        while self.comes_after(last + 1, DOT) && self.comes_after(last + 2, NAME) {
            last += 2;
        }
        if self.comes_after(last + 1, OPEN_BRACE) {
            return self.message();
        }
        let call = self.comes_after(leading + 1, OPEN_PAREN);
        let [choice, dot, name] = if call { [136, 135, 138] } else { [132, 131, 134] };
        self.sync(choice, DOT | NAME, Choice::Begin)?;
        self.maybe(dot, DOT, NAME)?;
        self.take(name, NAME, if call { OPEN_PAREN } else { END_OF_RULE })?;
        if call { self.arguments([139, 141, 143], END_OF_RULE) } else { Ok(()) }
    }

    fn message(&mut self) -> Outcome {
        const MORE: Set = DOT | OPEN_BRACE;
        self.sync(165, DOT | NAME, Choice::Begin)?;
        self.maybe(164, DOT, NAME)?;
        self.take(167, NAME, MORE)?;
        self.sync(172, MORE, Choice::Begin)?;
        while self.comes(DOT) {
            self.take(168, DOT, NAME)?;
            self.take(169, NAME, MORE)?;
            self.sync(174, MORE, Choice::Again)?;
        }
        let list = Self::field_initializer_list;
        self.elements([175, 177, 180, 179, 182], [OPEN_BRACE, FIELD, CLOSE_BRACE], list)
    }

    /// Elements between brackets, with a last comma: the places of the opening bracket, of the two choices, of the comma
    /// and of the closing one; and the opening bracket, what an element begins with, and the closing one.
    fn elements(
        &mut self,
        places: [u16; 5],
        [open, element, close]: [Set; 3],
        list: fn(&mut Self, Set) -> Outcome,
    ) -> Outcome {
        let [at_open, choice, last, comma, at_close] = places;
        self.take(at_open, open, element | COMMA | close)?;
        self.sync(choice, element | COMMA | close, Choice::Begin)?;
        if self.comes(element) {
            list(self, COMMA | close)?;
        }
        self.sync(last, COMMA | close, Choice::Begin)?;
        self.maybe(comma, COMMA, close)?;
        self.take(at_close, close, END_OF_RULE)
    }

    fn expr_list(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.expr(COMMA | END_OF_RULE)?;
            while walk.comes(COMMA) {
                walk.take(187, COMMA, OPERAND)?;
                walk.expr(COMMA | END_OF_RULE)?;
            }
            Ok(())
        })
    }

    fn list_init(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.opt_expr(COMMA | END_OF_RULE)?;
            while walk.comes(COMMA) && walk.comes_after(1, ELEMENT) {
                walk.take(195, COMMA, ELEMENT)?;
                walk.opt_expr(COMMA | END_OF_RULE)?;
            }
            Ok(())
        })
    }

    fn field_initializer_list(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.opt_field(COLON)?;
            walk.take(203, COLON, OPERAND)?;
            walk.expr(COMMA | END_OF_RULE)?;
            while walk.comes(COMMA) && walk.comes_after(1, FIELD) {
                walk.take(205, COMMA, FIELD)?;
                walk.opt_field(COLON)?;
                walk.take(207, COLON, OPERAND)?;
                walk.expr(COMMA | END_OF_RULE)?;
            }
            Ok(())
        })
    }

    fn map_initializer_list(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.opt_expr(COLON)?;
            walk.take(221, COLON, OPERAND)?;
            walk.expr(COMMA | END_OF_RULE)?;
            while walk.comes(COMMA) && walk.comes_after(1, ELEMENT) {
                walk.take(223, COMMA, ELEMENT)?;
                walk.opt_expr(COLON)?;
                walk.take(225, COLON, OPERAND)?;
                walk.expr(COMMA | END_OF_RULE)?;
            }
            Ok(())
        })
    }

    fn opt_field(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.sync(216, FIELD, Choice::Begin)?;
            walk.maybe(215, QUESTION, FIELD_NAME)?;
            walk.escape_ident(END_OF_RULE)
        })
    }

    fn escape_ident(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.sync(235, FIELD_NAME, Choice::Begin)?;
            walk.viable(0, FIELD_NAME)?;
            let place = if walk.comes(NAME) { 233 } else { 234 };
            walk.take(place, FIELD_NAME, END_OF_RULE)
        })
    }

    fn opt_expr(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.sync(238, ELEMENT, Choice::Begin)?;
            walk.maybe(237, QUESTION, OPERAND)?;
            walk.expr(END_OF_RULE)
        })
    }

    fn literal(&mut self, follow: Set) -> Outcome {
        self.rule(follow, |walk| {
            walk.sync(256, LITERAL, Choice::Begin)?;
            if walk.comes(MINUS) {
                walk.viable(1, NUMBER)?;
                walk.take(242, MINUS, NUMBER)?;
                return walk.take(245, NUMBER, END_OF_RULE);
            }
            walk.viable(0, LITERAL)?;
            walk.take(246, LITERAL, END_OF_RULE)
        })
    }
}
