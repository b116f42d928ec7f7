//! Bounded expressions: compiled once, evaluated under a step and a time limit.
//! The language is rhai's expression subset (no statements, loops, functions or
//! closures), on an engine that knows nothing but operators and `car`
//! (docs/decisions/003-rule-expressions.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rhai::{AST, Dynamic, Engine, EvalAltResult, OptimizationLevel, Scope};

use super::car::{self, Car, Missing};

/// How much one rule may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Evaluation steps of one expression.
    pub operations: u64,
    /// Processor time of all expressions of one rule: what a busy machine gives to others
    /// in between is not counted.
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
    deadline: Arc<Deadline>,
}

/// When a rule's time is over, in µs. A thread cannot have used more of the processor than has
/// passed on the wall: while that is within the limit, the dearer clock is not asked.
struct Deadline {
    wall_us: AtomicU64,
    processor_us: AtomicU64,
}

impl Deadline {
    fn never() -> Self {
        Self { wall_us: AtomicU64::new(u64::MAX), processor_us: AtomicU64::new(u64::MAX) }
    }

    fn set(&self, wall: Duration, processor: Duration) {
        self.wall_us.store(micros(wall), Ordering::Relaxed);
        self.processor_us.store(micros(processor), Ordering::Relaxed);
    }

    fn is_over(&self, wall: Duration, processor: impl FnOnce() -> Duration) -> bool {
        micros(wall) >= self.wall_us.load(Ordering::Relaxed)
            && micros(processor()) >= self.processor_us.load(Ordering::Relaxed)
    }
}

/// What this thread has had of the processor (`CLOCK_THREAD_CPUTIME_ID`, `clock_gettime(2)`).
/// Where the kernel has no such clock, the limit of steps stands alone.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
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
        let deadline = Arc::new(Deadline::never());
        let watched = Arc::clone(&deadline);
        engine.on_progress(move |_| watched.is_over(born.elapsed(), processor_time).then_some(Dynamic::UNIT));
        Self { engine, limits, born, deadline }
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
        let after = |time: Duration| time.saturating_add(self.limits.time);
        self.deadline.set(after(self.born.elapsed()), after(processor_time()));
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { operations: u64::MAX, time: Duration::from_millis(20) };

    /// An evaluator whose rules can lose the processor (`nap`) and use it (`work`), each for so many ms.
    fn evaluator() -> Evaluator {
        let mut evaluator = Evaluator::new(LIMITS);
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        // Stands for a machine that does something else.
        evaluator.engine.register_fn("nap", move |time: i64| {
            std::thread::sleep(ms(time));
            true
        });
        evaluator.engine.register_fn("work", move |time: i64| {
            let end = processor_time() + ms(time);
            while processor_time() < end {
                std::hint::spin_loop();
            }
            true
        });
        evaluator
    }

    fn truth(evaluator: &Evaluator, text: &str) -> Result<bool, Halt> {
        let expression = evaluator.compile(text).unwrap();
        evaluator.restart_clock();
        evaluator.truth(&expression, &Arc::new(Car::default()))
    }

    #[test]
    fn a_machine_busy_with_others_breaks_no_rule() {
        let evaluator = evaluator();
        let start = Instant::now();
        assert_eq!(truth(&evaluator, "nap(30) && nap(30) && 1 < 2"), Ok(true));
        assert!(start.elapsed() > LIMITS.time * 2);
    }

    #[test]
    fn a_rule_without_an_end_is_ended_also_on_a_busy_machine() {
        let evaluator = evaluator();
        // Without the clock it would take minutes.
        let both = |term: &str| format!("({})", vec![term; 15].join(" && "));
        let endless = both(&both(&both("work(50) && nap(1)")));
        let before = processor_time();
        assert_eq!(truth(&evaluator, &endless), Err(Halt::Time));
        let used = processor_time() - before;
        assert!(used >= LIMITS.time && used < LIMITS.time * 10, "{used:?}");
    }

    #[test]
    fn each_rule_has_its_own_time() {
        let evaluator = evaluator();
        for _ in 0..5 {
            assert_eq!(truth(&evaluator, "work(10)"), Ok(true));
        }
        assert_eq!(truth(&evaluator, "work(25) && work(1)"), Err(Halt::Time));
        assert_eq!(truth(&evaluator, "work(1) && 1 < 2"), Ok(true));
    }
}
