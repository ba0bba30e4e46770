//! The figures of a run as a table and as a picture.

use crate::cells::{Budget, Cell, Metric};
use crate::rounds::{Figures, Measured};
use crate::target::Kind;
use std::fmt::Write;

/// Medians of one row of the table.
struct Row<'a> {
    cell: &'a str,
    metric: Metric,
    budgets: &'a [Budget],
    floor: Option<f64>,
    tally: Option<f64>,
    kafka: Option<f64>,
    /// Lowest and highest round of Tally.
    range: Option<(f64, f64)>,
}

/// What was measured: cells with their rounds.
pub(crate) type Results = Vec<(Cell, Measured)>;

/// Median, lowest and highest of a metric.
fn spread(rounds: Option<&Vec<Figures>>, metric: Metric) -> Option<(f64, f64, f64)> {
    let rounds = rounds?.iter();
    let mut values: Vec<f64> = rounds
        .filter_map(|round| round.get(&metric).copied())
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.get(values.len() / 2)?;
    Some((*middle, *values.first()?, *values.last()?))
}

fn rows<'a>(results: impl Iterator<Item = &'a (Cell, Measured)>) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (cell, measured) in results {
        for (metric, budgets) in &cell.rows {
            let of = |kind| spread(measured.get(&kind), *metric);
            let (floor, kafka) = (of(Kind::Floor), of(Kind::Kafka));
            let tally = of(Kind::Tally).or_else(|| of(Kind::Other));
            if floor.or(tally).or(kafka).is_none() {
                continue;
            }
            rows.push(Row {
                cell: &cell.name,
                metric: *metric,
                budgets,
                floor: floor.map(|it| it.0),
                tally: tally.map(|it| it.0),
                kafka: kafka.map(|it| it.0),
                range: tally.map(|it| (it.1, it.2)),
            });
        }
    }
    rows
}

/// Whether the budget is kept and by what figure that is seen; `None` if something to compare with was not measured.
fn judge(row: &Row<'_>, budget: Budget) -> Option<(String, bool)> {
    let tally = row.tally?;
    Some(match budget {
        Budget::FloorTimes(limit) => {
            let times = tally / row.floor?;
            (format!("<= {limit} x floor: {times:.2}"), times <= limit)
        }
        Budget::FloorShare(limit) => {
            let times = tally / row.floor?;
            (format!(">= {limit} x floor: {times:.2}"), times >= limit)
        }
        Budget::KafkaOver(limit) => {
            let times = row.kafka? / tally;
            (format!("<= Kafka / {limit}: / {times:.1}"), times >= limit)
        }
        Budget::KafkaTimes(limit) => {
            let times = tally / row.kafka?;
            (format!(">= {limit} x Kafka: {times:.1}"), times >= limit)
        }
        Budget::AtMost(limit) => (format!("<= {limit}"), tally <= limit),
        Budget::AtLeast(limit) => (format!(">= {limit}"), tally >= limit),
        // Left out by `Run::chosen` where the disk is slower.
        Budget::AtLeastWithQuickSync(limit) => (format!(">= {limit}"), tally >= limit),
        Budget::AtMostWithQuickSync(limit) => (format!("<= {limit}"), tally <= limit),
    })
}

/// The table, in Markdown, and how many budgets are missed.
pub(crate) fn table<'a>(results: impl Iterator<Item = &'a (Cell, Measured)>) -> (String, usize) {
    let mut text = String::from(
        "| cell | figure | floor | Tally (lowest - highest) | Kafka | Tally / floor | Kafka / Tally | budget | kept |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut missed = 0;
    let mut last = "";
    for row in rows(results) {
        let judged: Vec<(String, bool)> = row
            .budgets
            .iter()
            .filter_map(|&budget| judge(&row, budget))
            .collect();
        missed += judged.iter().filter(|(_, is_kept)| !is_kept).count();
        let budgets: Vec<&str> = judged.iter().map(|(budget, _)| budget.as_str()).collect();
        let kept: Vec<&str> = judged
            .iter()
            .map(|(_, is_kept)| if *is_kept { "yes" } else { "**no**" })
            .collect();
        let range = row.range.map_or_else(String::new, |(low, high)| {
            if high > low {
                format!(" ({} - {})", short(low), short(high))
            } else {
                String::new()
            }
        });
        let ratio = |over: Option<f64>, under: Option<f64>| {
            let ratio = over.zip(under).filter(|(_, under)| *under > 0.0);
            ratio.map_or_else(String::new, |(over, under)| short(over / under))
        };
        let shown = |figure: Option<f64>| figure.map_or_else(String::new, short);
        let name = if row.cell == last { "" } else { row.cell };
        last = row.cell;
        let _infallible = writeln!(
            text,
            "| {name} | {} | {} | {}{range} | {} | {} | {} | {} | {} |",
            row.metric.name(),
            shown(row.floor),
            shown(row.tally),
            shown(row.kafka),
            ratio(row.tally, row.floor),
            ratio(row.kafka, row.tally),
            budgets.join("; "),
            kept.join("; "),
        );
    }
    (text, missed)
}

/// Three digits that mean something.
fn short(figure: f64) -> String {
    let size = figure.abs();
    if size >= 100.0 {
        format!("{figure:.0}")
    } else if size >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}

const ROW: f64 = 22.0;
const LEFT: f64 = 190.0;
const WIDTH: f64 = 560.0;
const TOP: f64 = 60.0;

/// The cost in processor time of each cell with a budget as points on one axis: times the floor's.
pub(crate) fn picture(results: &Results, caption: &str) -> String {
    let all = rows(results.iter().filter(|(cell, _)| cell.has_budget));
    let costs: Vec<_> = all
        .iter()
        .filter(|row| matches!(row.metric, Metric::CpuMicros | Metric::CpuPerGb))
        .filter_map(|row| {
            let floor = row.floor.filter(|floor| *floor > 0.0)?;
            Some((
                row.cell,
                row.tally? / floor,
                row.kafka.map(|kafka| kafka / floor),
            ))
        })
        .collect();
    let highest = costs
        .iter()
        .filter_map(|(_, tally, kafka)| kafka.or(Some(*tally)));
    let decades = highest.fold(10.0, f64::max).log10().ceil();
    let x =
        |times: f64| LEFT + WIDTH * ((times.max(0.3) / 0.3).log10() / (decades - 0.3_f64.log10()));
    let bottom = TOP + ROW * costs.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">Processor time of the server, times the floor's (less is better)</text>\n\
         <text x=\"10\" y=\"38\" fill=\"#555\">{caption}</text>\n",
        LEFT + WIDTH + 40.0,
        bottom + 50.0
    );
    let mut mark = 1.0;
    while mark <= 10_f64.powf(decades) {
        let at = x(mark);
        svg += &format!(
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{mark}</text>\n",
            bottom + 16.0
        );
        mark *= 10.0;
    }
    for (nth, (cell, tally, kafka)) in costs.iter().enumerate() {
        let y = TOP + ROW * (nth as f64 + 0.5);
        svg += &format!("<text x=\"10\" y=\"{:.1}\">{cell}</text>\n", y + 4.0);
        svg += &point(x(1.0), y, "#999", "floor");
        svg += &point(x(*tally), y, "#0a6", &format!("Tally {tally:.2}"));
        if let Some(kafka) = kafka {
            svg += &point(x(*kafka), y, "#c40", &format!("Kafka {kafka:.1}"));
        }
    }
    for (nth, (colour, name)) in [("#999", "floor"), ("#0a6", "Tally"), ("#c40", "Kafka")]
        .iter()
        .enumerate()
    {
        let at = LEFT + 90.0 * nth as f64;
        svg += &point(at, bottom + 34.0, colour, name);
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>\n",
            at + 10.0,
            bottom + 38.0
        );
    }
    svg + "</svg>\n"
}

fn point(x: f64, y: f64, colour: &str, title: &str) -> String {
    format!(
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"><title>{title}</title></circle>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells;

    fn results() -> Results {
        let cell = cells::all().remove(0);
        let rounds = |values: [f64; 3]| {
            values
                .map(|value| Figures::from([(Metric::CpuMicros, value)]))
                .to_vec()
        };
        let measured = Measured::from([
            (Kind::Floor, rounds([5.0, 4.0, 6.0])),
            (Kind::Tally, rounds([10.0, 9.0, 30.0])),
            (Kind::Kafka, rounds([60.0, 50.0, 70.0])),
        ]);
        vec![(cell, measured)]
    }

    #[test]
    fn a_row_holds_the_medians_and_says_which_budget_is_missed() {
        let (table, missed) = table(results().iter());
        assert_eq!(missed, 1);
        let row = table.lines().last().unwrap();
        assert_eq!(
            row,
            "| produce-170B | CPU us each | 5.00 | 10.0 (9.00 - 30.0) | 60.0 | 2.00 | 6.00 | \
             <= 1.5 x floor: 2.00; <= Kafka / 5: / 6.0 | **no**; yes |"
        );
    }

    #[test]
    fn the_picture_has_a_point_for_each_program() {
        let svg = picture(&results(), "a caption");
        assert!(
            svg.contains("Tally 2.00") && svg.contains("Kafka 12.0"),
            "{svg}"
        );
        assert_eq!(svg.matches("<circle").count(), 6);
    }
}
