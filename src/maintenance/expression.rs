//! Bounded expressions: compiled once, evaluated under a step and a time limit.
//! The language is rhai's expression subset (no statements, loops, functions or
//! closures), on an engine that knows nothing but operators and `car`
//! (docs/decisions/003-rule-expressions.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rhai::{AST, Dynamic, Engine, EvalAltResult, OptimizationLevel, Scope};

use super::car::{self, Car, Missing};

/// How much one rule may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Evaluation steps of one expression.
    pub operations: u64,
    /// Wall time of all expressions of one rule.
    pub time: Duration,
}

impl Default for Limits {
    /// 2,000 steps (the longest shipped rule takes about 40) and 50 ms.
    fn default() -> Self {
        Self { operations: 2_000, time: Duration::from_millis(50) }
    }
}

/// Why an expression gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Halt {
    /// The car did not tell this.
    Missing(String),
    /// Over the step limit.
    Steps,
    /// Over the time limit.
    Time,
    /// The expression itself is wrong.
    Wrong(String),
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Expression(AST);

/// Where in an expression its text is wrong: line and column from 1, and why.
#[derive(Debug)]
pub(super) struct CompileError {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) what: String,
}

/// An engine with one clock: for one evaluation of many rules, on one thread.
pub(super) struct Evaluator {
    engine: Engine,
    limits: Limits,
    born: Instant,
    deadline_us: Arc<AtomicU64>,
}

impl Evaluator {
    pub(super) fn new(limits: Limits) -> Self {
        let mut engine = Engine::new_raw();
        engine
            .set_optimization_level(OptimizationLevel::None)
            .set_max_operations(limits.operations)
            .set_max_call_levels(4)
            .set_max_expr_depths(64, 4)
            .set_max_string_size(4 * 1024)
            .set_max_array_size(64)
            .set_max_map_size(64)
            .set_strict_variables(false);
        for word in ["eval", "print", "debug", "Fn", "call", "curry", "type_of", "this", "if", "switch"] {
            engine.disable_symbol(word);
        }
        car::register(&mut engine);
        let born = Instant::now();
        let deadline_us = Arc::new(AtomicU64::new(u64::MAX));
        let deadline = Arc::clone(&deadline_us);
        engine.on_progress(move |_| {
            (micros(born.elapsed()) >= deadline.load(Ordering::Relaxed)).then_some(Dynamic::UNIT)
        });
        Self { engine, limits, born, deadline_us }
    }

    pub(super) fn compile(&self, text: &str) -> Result<Expression, CompileError> {
        self.engine.compile_expression(text).map(Expression).map_err(|error| CompileError {
            line: error.position().line().unwrap_or(1),
            column: error.position().position().unwrap_or(1),
            what: error.err_type().to_string(),
        })
    }

    /// The next rule's time begins.
    pub(super) fn restart_clock(&self) {
        let deadline = self.born.elapsed().saturating_add(self.limits.time);
        self.deadline_us.store(micros(deadline), Ordering::Relaxed);
    }

    pub(super) fn value(&self, expression: &Expression, car: &Arc<Car>) -> Result<Dynamic, Halt> {
        let mut scope = Scope::new();
        scope.push_constant("car", Arc::clone(car));
        self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &expression.0).map_err(|error| halt(*error))
    }

    pub(super) fn truth(&self, expression: &Expression, car: &Arc<Car>) -> Result<bool, Halt> {
        let value = self.value(expression, car)?;
        value.as_bool().map_err(|_| Halt::Wrong(format!("gives {value} where true or false is needed")))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn halt(mut error: EvalAltResult) -> Halt {
    match error.unwrap_inner() {
        EvalAltResult::ErrorTooManyOperations(..) => return Halt::Steps,
        EvalAltResult::ErrorTerminated(..) => return Halt::Time,
        EvalAltResult::ErrorRuntime(value, _) => {
            if let Some(Missing(what)) = value.clone().try_cast::<Missing>() {
                return Halt::Missing(what);
            }
        }
        _ => {}
    }
    error.clear_position();
    Halt::Wrong(error.to_string())
}
