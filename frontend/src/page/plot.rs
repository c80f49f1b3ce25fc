//! Plots as SVG: numbers become places here, how they look is the style sheet's.

use askama::Template;

/// The size, in the units of the drawing.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;

/// A value, and whether it is of something that went well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    pub good: f64,
    pub bad: f64,
}

#[derive(Template)]
#[template(path = "plot.svg", escape = "html")]
pub struct Plot {
    title: String,
    lines: Vec<(f64, String)>,
    /// x, y, width, height, class.
    bars: Vec<(f64, f64, f64, f64, &'static str)>,
    /// x, y, class.
    dots: Vec<(f64, f64, &'static str)>,
    first: String,
    last: String,
}

impl Plot {
    /// Bars, one for each of the labelled values, what went well below what did not.
    pub fn bars(title: &str, values: &[(String, Value)]) -> Plot {
        let most = values
            .iter()
            .map(|(_, v)| v.good + v.bad)
            .fold(1.0, f64::max);
        let top = round_up(most);
        let step = (WIDTH - LEFT - RIGHT) / values.len().max(1) as f64;
        let height = |value: f64| value / top * (HEIGHT - TOP - BOTTOM);
        let mut bars = Vec::new();
        for (index, (_, value)) in values.iter().enumerate() {
            let x = LEFT + step * index as f64 + step * 0.15;
            let (good, bad) = (height(value.good), height(value.bad));
            bars.push((x, HEIGHT - BOTTOM - good, step * 0.7, good, "bar-good"));
            bars.push((x, HEIGHT - BOTTOM - good - bad, step * 0.7, bad, "bar-bad"));
        }
        bars.retain(|bar| bar.3 > 0.0);
        let lines = [0.0, 0.5, 1.0].map(|part| {
            (
                HEIGHT - BOTTOM - height(top * part),
                super::view::number((top * part) as i64),
            )
        });
        Plot {
            bars,
            lines: lines.into(),
            ..Plot::empty(title, values.iter().map(|(label, _)| label.as_str()))
        }
    }

    /// Seconds as dots, from a millisecond up, each power of ten as high as the next; true is good.
    pub fn seconds(title: &str, values: &[(f64, bool)], first: &str, last: &str) -> Plot {
        const LEAST: f64 = 0.001;
        let most = values
            .iter()
            .map(|(seconds, _)| *seconds)
            .fold(1.0, f64::max);
        let powers = (most / LEAST).log10().ceil().max(1.0);
        let y = |seconds: f64| {
            let part = (seconds.max(LEAST) / LEAST).log10() / powers;
            HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
        };
        let step = (WIDTH - LEFT - RIGHT) / values.len().max(1) as f64;
        let dot = |(index, (seconds, good)): (usize, &(f64, bool))| {
            let x = LEFT + step * (index as f64 + 0.5);
            (x, y(*seconds), if *good { "dot-good" } else { "dot-bad" })
        };
        let lines = (0..=powers as i32).map(|power| LEAST * 10_f64.powi(power));
        Plot {
            dots: values.iter().enumerate().map(dot).collect(),
            lines: lines.map(|seconds| (y(seconds), label(seconds))).collect(),
            ..Plot::empty(title, [first, last].into_iter())
        }
    }

    fn empty<'a>(title: &str, mut labels: impl Iterator<Item = &'a str>) -> Plot {
        let first = labels.next().unwrap_or_default().to_owned();
        Plot {
            title: title.into(),
            lines: Vec::new(),
            bars: Vec::new(),
            dots: Vec::new(),
            last: labels.last().unwrap_or_default().to_owned(),
            first,
        }
    }
}

fn label(seconds: f64) -> String {
    match seconds {
        s if s < 0.9 => format!("{:.0} ms", s * 1000.0),
        s => format!("{s:.0} s"),
    }
}

/// The next of 2, 4, 10, 20, 40, 100 and so on: halves are whole numbers.
fn round_up(value: f64) -> f64 {
    let mut power = 1.0;
    loop {
        for step in [2.0, 4.0, 10.0] {
            if step * power >= value {
                return step * power;
            }
        }
        power *= 10.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [
            (1.0, 2.0),
            (3.0, 4.0),
            (4.1, 10.0),
            (11.0, 20.0),
            (99.0, 100.0),
        ] {
            assert_eq!(round_up(value), end);
        }
        assert_eq!(
            (label(0.001), label(0.1), label(100.0)),
            ("1 ms".into(), "100 ms".into(), "100 s".into())
        );
    }

    #[test]
    fn everything_is_drawn_within() {
        let bars = Plot::bars(
            "t",
            &[
                (
                    "a".into(),
                    Value {
                        good: 3.0,
                        bad: 1.0,
                    },
                ),
                (
                    "b".into(),
                    Value {
                        good: 0.0,
                        bad: 0.0,
                    },
                ),
            ],
        );
        assert_eq!(bars.bars.len(), 2);
        assert!(
            bars.bars.iter().all(|(x, y, w, h, _)| *x >= LEFT
                && x + w <= WIDTH
                && *y >= TOP
                && y + h <= HEIGHT)
        );
        let dots = Plot::seconds("t", &[(0.0, true), (5000.0, false)], "", "");
        assert!(
            dots.dots
                .iter()
                .all(|(x, y, _)| *x >= LEFT && *x <= WIDTH && *y >= TOP && *y <= HEIGHT - BOTTOM)
        );
        assert!(Plot::bars("t", &[]).render().is_ok());
    }
}
