//! Grouped bars, points with whiskers, or steps over time, as SVG. The background is white, so that a chart is readable on
//! a dark page.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    /// The labels of the axes, with units.
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// Names below the axis; may contain line breaks.
    pub(crate) groups: Vec<String>,
    pub(crate) series: Vec<Series>,
    pub(crate) mark: Option<Mark>,
    pub(crate) notes: Vec<Note>,
    /// The lowest height that is shown.
    pub(crate) from: f64,
    pub(crate) form: Form,
    /// The heights that are labelled on a logarithmic axis; empty for a linear one.
    pub(crate) logarithmic: &'static [f64],
}

/// How a height is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Bars,
    Points,
    /// A line that holds each height until the next group.
    Steps,
}

/// A horizontal line, and its text in the legend.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) height: f64,
    pub(crate) text: String,
    /// Its group; `None`: all groups.
    pub(crate) group: Option<usize>,
}

/// A text beside a point.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) at: (f64, f64),
    pub(crate) text: String,
    pub(crate) colour: RGBColor,
}

/// Bars of one colour, one per group.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) bars: Vec<Option<Bar>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) height: f64,
    /// The interval of the height.
    pub(crate) whiskers: Option<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;
type Drawn = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (960, 520);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(222, 222, 222);
/// The fraction of a group's width that its bars fill.
const FILLED: f64 = 0.84;

impl Bars {
    /// Writes the chart as SVG.
    pub(crate) fn draw(&self, path: &Path) -> Drawn {
        let mut svg = String::new();
        self.draw_into(&mut svg)?;
        // Defaults.
        fs::write(path, svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", ""))?;
        Ok(())
    }

    fn draw_into(&self, svg: &mut String) -> Drawn {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(78);
        self.head(&head)?;
        let mut plot = ChartBuilder::on(&body)
            .margin_left(10)
            .margin_right(24)
            .set_label_area_size(LabelAreaPosition::Left, 70)
            .set_label_area_size(LabelAreaPosition::Bottom, 74)
            .build_cartesian_2d(0.0..count(self.groups.len()), self.scaled(self.from)..self.top())?;
        let mut mesh = plot.configure_mesh();
        if !self.logarithmic.is_empty() {
            mesh.disable_y_mesh();
        }
        mesh.disable_x_mesh()
            .x_labels(0)
            .y_labels(if self.logarithmic.is_empty() { 8 } else { 0 })
            .max_light_lines(0)
            .y_desc(self.up)
            .y_label_formatter(&|height| format!("{}", (height * 100.0).round() / 100.0))
            .axis_style(INK)
            .bold_line_style(GRID)
            .label_style((FONT, 15, &INK))
            .axis_desc_style((FONT, 16, &INK))
            .draw()?;
        self.heights(&mut plot, &body)?;
        match self.form {
            Form::Steps => self.steps(&mut plot)?,
            Form::Bars | Form::Points => self.bars(&mut plot)?,
        }
        self.mark(&mut plot)?;
        self.groups(&plot, &body)?;
        self.notes(&plot, &body)?;
        root.present()?;
        Ok(())
    }

    fn scaled(&self, height: f64) -> f64 {
        if self.logarithmic.is_empty() { height } else { height.log10() }
    }

    /// Title and legend.
    fn head(&self, area: &Area<'_>) -> Drawn {
        area.draw(&Text::new(self.title.clone(), (16, 10), (FONT, 21, &INK).into_text_style(area)))?;
        let mut x = 16;
        for series in &self.series {
            area.draw(&Rectangle::new([(x, 50), (x + 13, 63)], series.colour.filled()))?;
            let style = (FONT, 15, &INK).into_text_style(area);
            area.draw(&Text::new(series.name.clone(), (x + 18, 49), style))?;
            x += 18 + width(&series.name) + 14;
        }
        if let Some(mark) = &self.mark {
            area.draw(&PathElement::new(vec![(x, 57), (x + 22, 57)], RED.stroke_width(2)))?;
            area.draw(&Text::new(mark.text.clone(), (x + 28, 49), (FONT, 15, &INK).into_text_style(area)))?;
        }
        Ok(())
    }

    fn bars(&self, plot: &mut Plot<'_, '_>) -> Drawn {
        let width = FILLED / count(self.series.len());
        for (number, series) in self.series.iter().enumerate() {
            for (group, bar) in series.bars.iter().enumerate() {
                let Some(bar) = bar else { continue };
                let left = count(group) + (1.0 - FILLED) / 2.0 + count(number) * width;
                let (low, high) = (self.scaled(self.from), self.scaled(bar.height));
                match self.form {
                    Form::Points => {
                        let point = Circle::new((left + width / 2.0, high), 5, series.colour.filled());
                        plot.draw_series([point])?;
                    }
                    Form::Bars | Form::Steps => {
                        let corners = [(left + 0.06 * width, low), (left + 0.94 * width, high)];
                        plot.draw_series([Rectangle::new(corners, series.colour.filled())])?;
                    }
                }
                Self::whiskers(plot, *bar, left + width / 2.0, width / 4.0)?;
            }
        }
        Ok(())
    }

    /// The first series are drawn last, above the others.
    fn steps(&self, plot: &mut Plot<'_, '_>) -> Drawn {
        for series in self.series.iter().rev() {
            let mut line = Vec::new();
            for (group, bar) in series.bars.iter().enumerate() {
                let Some(bar) = bar else { continue };
                let height = self.scaled(bar.height);
                line.extend([(count(group), height), (count(group) + 1.0, height)]);
            }
            plot.draw_series([PathElement::new(line, series.colour.stroke_width(3))])?;
        }
        Ok(())
    }

    /// Draws the lines and labels of a logarithmic axis.
    fn heights(&self, plot: &mut Plot<'_, '_>, area: &Area<'_>) -> Drawn {
        let style = (FONT, 15, &INK).into_text_style(area).pos(Pos::new(HPos::Right, VPos::Center));
        let (shift, base) = area.get_base_pixel();
        for height in self.logarithmic {
            let line = vec![(0.0, self.scaled(*height)), (count(self.groups.len()), self.scaled(*height))];
            plot.draw_series([PathElement::new(line, GRID)])?;
            let (x, y) = plot.backend_coord(&(0.0, self.scaled(*height)));
            area.draw(&Text::new(height.to_string(), (x - shift - 10, y - base), style.clone()))?;
        }
        Ok(())
    }

    fn notes(&self, plot: &Plot<'_, '_>, area: &Area<'_>) -> Drawn {
        let (shift, base) = area.get_base_pixel();
        for note in &self.notes {
            let style =
                (FONT, 15, &note.colour).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Bottom));
            let (x, y) = plot.backend_coord(&(note.at.0, self.scaled(note.at.1)));
            area.draw(&Text::new(note.text.clone(), (x - shift + 6, y - base - 6), style))?;
        }
        Ok(())
    }

    fn whiskers(plot: &mut Plot<'_, '_>, bar: Bar, middle: f64, half: f64) -> Drawn {
        let Some((low, high)) = bar.whiskers else { return Ok(()) };
        let line = |from, to| PathElement::new(vec![from, to], INK.stroke_width(1));
        plot.draw_series([
            line((middle, low), (middle, high)),
            line((middle - half, low), (middle + half, low)),
            line((middle - half, high), (middle + half, high)),
        ])?;
        Ok(())
    }

    fn mark(&self, plot: &mut Plot<'_, '_>) -> Drawn {
        let Some(mark) = &self.mark else { return Ok(()) };
        let height = self.scaled(mark.height);
        let (from, to) = match mark.group {
            Some(group) => (count(group), count(group) + 1.0),
            None => (0.0, count(self.groups.len())),
        };
        let line = vec![(from, height), (to, height)];
        plot.draw_series([PathElement::new(line, RED.stroke_width(2))])?;
        Ok(())
    }

    /// Draws the names of the groups, and the label of the axis.
    fn groups(&self, plot: &Plot<'_, '_>, area: &Area<'_>) -> Drawn {
        let style = (FONT, 15, &INK).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Top));
        let (shift, _) = area.get_base_pixel();
        let base = area.get_base_pixel().1;
        let below = i32::try_from(SIZE.1)? - base - 74;
        for (number, group) in self.groups.iter().enumerate() {
            let middle = if self.form == Form::Steps { 0.0 } else { 0.5 };
            let (x, _) = plot.backend_coord(&(count(number) + middle, self.scaled(self.from)));
            for (line, text) in (0..).zip(group.lines()) {
                area.draw(&Text::new(text.to_owned(), (x - shift, below + 8 + 17 * line), style.clone()))?;
            }
        }
        let style = (FONT, 16, &INK).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Top));
        let middle = i32::try_from(SIZE.0 / 2)?;
        area.draw(&Text::new(self.across, (middle, below + 50), style))?;
        Ok(())
    }

    fn top(&self) -> f64 {
        let bars = self.series.iter().flat_map(|series| series.bars.iter().flatten());
        let highest = bars.map(|bar| bar.whiskers.map_or(bar.height, |(_, high)| high.max(bar.height)));
        let mark = self.mark.as_ref().map(|mark| mark.height);
        let (lowest, highest) = (self.scaled(self.from), highest.chain(mark).fold(self.from, f64::max));
        self.scaled(highest) + (self.scaled(highest) - lowest) * 0.08
    }
}

/// Returns the width of a text in the legend: generous, because the reader's font is unknown.
fn width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(0) * 15 / 2
}

#[allow(clippy::cast_precision_loss, reason = "some dozen")]
fn count(number: usize) -> f64 {
    number as f64
}
