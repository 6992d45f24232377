//! How the cost grows, as a picture: CPU seconds and memory by the number of routes and by the number of peers.

use std::fmt::Write as _;

/// One daemon's line: by what is on the horizontal axis, what is on the vertical one.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One diagram.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    pub(crate) lines: Vec<Line>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 4] = ["#d6604d", "#4393c3", "#5aae61", "#9970ab"];

/// Draws diagrams in rows of two.
pub(crate) fn svg(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2) as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * WIDTH,
        rows * HEIGHT
    );
    for (at, panel) in panels.iter().enumerate() {
        let (left, top) = ((at % 2) as f64 * WIDTH, (at / 2) as f64 * HEIGHT);
        let _ = writeln!(text, "<g transform=\"translate({left},{top})\">");
        draw(panel, &mut text);
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn draw(panel: &Panel, text: &mut String) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (right, top) = (round_up(most(|point| point.0)), round_up(most(|point| point.1)));
    let x = |value: f64| MARGIN + value / right * (WIDTH - 1.5 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN + 10.0 - value / top * (HEIGHT - 1.6 * MARGIN);
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"20\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>",
        WIDTH / 2.0,
        panel.title
    );
    for part in 0..=4 {
        let (across, up) = (right * f64::from(part) / 4.0, top * f64::from(part) / 4.0);
        let _ = writeln!(
            text,
            "<line x1=\"{x0}\" y1=\"{y1}\" x2=\"{x1}\" y2=\"{y1}\" stroke=\"#ddd\"/>\
             <text x=\"{tx}\" y=\"{ty}\" text-anchor=\"end\">{}</text>\
             <text x=\"{bx}\" y=\"{by}\" text-anchor=\"middle\">{}</text>",
            number(up),
            number(across),
            x0 = x(0.0),
            x1 = x(right),
            y1 = y(up),
            tx = x(0.0) - 6.0,
            ty = y(up) + 4.0,
            bx = x(across),
            by = y(0.0) + 16.0,
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text x=\"14\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {})\">{}</text>",
        WIDTH / 2.0,
        HEIGHT - 14.0,
        panel.across,
        HEIGHT / 2.0,
        HEIGHT / 2.0,
        panel.up
    );
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let path: Vec<String> =
            line.points.iter().map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up))).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (across, up) in &line.points {
            let _ = writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*across),
                y(*up)
            );
        }
        if let Some((across, up)) = line.points.last() {
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
                x(*across) - 4.0,
                y(*up) - 8.0,
                line.name
            );
        }
    }
}

/// The next number with one digit that is not zero, or 1.5 or 2.5 of its kind.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    unit * steps.into_iter().find(|step| step * unit >= value).unwrap_or(10.0)
}

fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", value / 1e6)
    } else if value >= 10_000.0 {
        format!("{:.0} k", value / 1e3)
    } else {
        format!("{}", (value * 1000.0).round() / 1000.0)
    }
}
