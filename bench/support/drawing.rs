//! A record as a picture: bars for what belongs to no curve, curves for the rest.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::record::{Figure, Record, number};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 960;
const COLUMNS: usize = 2;
const HEADER: u32 = 44;
const TITLE: i32 = 26;
const BAR: i32 = 20;
const CURVE_HEIGHT: u32 = 260;
/// What a bar's name takes, and the text behind it.
const NAME_WIDTH: i32 = 190;
const VALUE_WIDTH: i32 = 130;

/// The title of a curve and the names of its series, in two rows at most.
const LEGEND: i32 = 56;
const NAMES_A_ROW: usize = 4;
const NAME_STEP: i32 = 112;
const NAME_HEIGHT: i32 = 15;

/// Values further apart than this are drawn on a logarithmic scale.
const FAR_APART: f64 = 30.0;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0xd9, 0x6a, 0x1c),
    RGBColor(0x2f, 0x8f, 0x4e),
    RGBColor(0xa8, 0x32, 0x4a),
    RGBColor(0x6b, 0x4f, 0xa0),
    RGBColor(0x70, 0x70, 0x70),
];
const GREY: RGBColor = RGBColor(0x60, 0x60, 0x60);

/// All that was measured of one thing.
struct Panel<'a> {
    title: String,
    along: Option<&'a str>,
    figures: Vec<&'a Figure>,
}

/// Writes the picture of a record.
pub fn draw(path: &Path, Record { run, figures }: &Record) -> Drawn {
    let panels = panels(figures);
    let rows: Vec<&[Panel]> = panels.chunks(COLUMNS).collect();
    let heights: Vec<u32> = rows.iter().map(|row| row.iter().map(Panel::height).max().unwrap_or(0)).collect();
    let height = HEADER + heights.iter().sum::<u32>();
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    text(&root, &run.bench, (12, 8), 15, BLACK)?;
    let facts = format!("{} · {} · {} · load {}", run.date, run.commit, run.machine(), run.load);
    text(&root, &facts, (12, 28), 11, GREY)?;
    let mut top = HEADER;
    for (row, height) in rows.iter().zip(heights) {
        let width = WIDTH / COLUMNS as u32;
        for (column, panel) in (0..).zip(*row) {
            panel.draw(&root.clone().shrink((column * width, top), (width, height)))?;
        }
        top += height;
    }
    Ok(root.present()?)
}

/// Those of one kind together, in the order of the first of each.
fn panels(figures: &[Figure]) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel> = Vec::new();
    for figure in figures {
        let title = format!("{}, {}", figure.figure, figure.unit);
        let along = figure.at.as_ref().map(|at| at.along.as_str());
        match panels.iter_mut().find(|panel| panel.title == title && panel.along == along) {
            Some(panel) => panel.figures.push(figure),
            None => panels.push(Panel { title, along, figures: vec![figure] }),
        }
    }
    panels
}

impl Panel<'_> {
    fn height(&self) -> u32 {
        match self.along {
            Some(_) => CURVE_HEIGHT,
            None => (TITLE + BAR * self.figures.len() as i32 + 16) as u32,
        }
    }

    fn draw(&self, area: &Area) -> Drawn {
        match self.along {
            None => self.bars(area),
            Some(along) if self.is_far_apart() => {
                let (least, most) = self.ends();
                self.curves(area, along, (least / 1.5..most * 1.5).log_scale())
            }
            Some(along) => self.curves(area, along, 0.0..self.ends().1 * 1.1),
        }
    }

    /// The lowest of all rounds, and the highest.
    fn ends(&self) -> (f64, f64) {
        self.figures
            .iter()
            .map(|figure| figure.spread())
            .fold((f64::INFINITY, f64::MIN_POSITIVE), |ends, spread| (ends.0.min(spread.0), ends.1.max(spread.1)))
    }

    fn is_far_apart(&self) -> bool {
        let (least, most) = self.ends();
        least > 0.0 && most / least > FAR_APART
    }

    /// A bar for each median, or a dot where they are far apart, and a line from the lowest round to
    /// the highest.
    fn bars(&self, area: &Area) -> Drawn {
        let (least, most) = self.ends();
        let is_far_apart = self.is_far_apart();
        let width = f64::from(area.dim_in_pixel().0 as i32 - NAME_WIDTH - VALUE_WIDTH - 24);
        let place = |value: f64| {
            let part = if is_far_apart { (value / least).ln() / (most / least).ln() } else { value.max(0.0) / most };
            NAME_WIDTH + (part * width) as i32
        };
        let title = if is_far_apart { format!("{} (logarithmic)", self.title) } else { self.title.clone() };
        text(area, &title, (12, 4), 13, BLACK)?;
        for (index, figure) in (0..).zip(&self.figures) {
            let (top, middle) = (TITLE + index * BAR, TITLE + index * BAR + BAR / 2 - 2);
            let ((lowest, highest), median) = (figure.spread(), figure.median());
            text(area, &cut(&figure.series), (12, top + 3), 11, BLACK)?;
            if is_far_apart {
                area.draw(&Circle::new((place(median), middle), 4, COLOURS[0].filled()))?;
            } else {
                let corners = [(NAME_WIDTH, top + 3), (place(median), top + BAR - 3)];
                area.draw(&Rectangle::new(corners, COLOURS[0].mix(0.75).filled()))?;
            }
            area.draw(&PathElement::new([(place(lowest), middle), (place(highest), middle)], BLACK.stroke_width(1)))?;
            text(area, &figure.summary(), (place(highest.max(median)) + 8, top + 3), 11, GREY)?;
        }
        Ok(())
    }

    /// A line through the medians of each series, and at each place one from the lowest round to the
    /// highest.
    fn curves<Y>(&self, area: &Area, along: &str, range: Y) -> Drawn
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let (legend, plot) = area.split_vertically(LEGEND);
        text(&legend, &self.title, (12, 4), 13, BLACK)?;
        let places = || self.figures.iter().filter_map(|figure| Some((figure.at.as_ref()?.x, *figure)));
        let (from, to) = places().fold((f64::INFINITY, 0.0), |(from, to), (x, _)| (x.min(from), x.max(to)));
        let mut chart = ChartBuilder::on(&plot)
            .margin(6)
            .margin_right(16)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d((from / 1.2..to * 1.2).log_scale(), range)?;
        let format = |value: &f64| match number(*value) {
            text if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            text => text,
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.2))
            .axis_style(GREY)
            .label_style(("sans-serif", 11, &GREY))
            .x_desc(along)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&format)
            .y_label_formatter(&format)
            .draw()?;
        let mut series: Vec<&str> = Vec::new();
        for (_, figure) in places() {
            if !series.contains(&figure.series.as_str()) {
                series.push(&figure.series);
            }
        }
        for (index, name) in series.into_iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let (row, column) = (index / NAMES_A_ROW, index % NAMES_A_ROW);
            let place = (12 + NAME_STEP * column as i32, TITLE - 4 + NAME_HEIGHT * row as i32);
            text(&legend, name, place, 11, colour)?;
            let of_it = || places().filter(move |(_, figure)| figure.series == name);
            chart.draw_series(LineSeries::new(
                of_it().map(|(x, figure)| (x, figure.median())),
                colour.stroke_width(2),
            ))?;
            chart.draw_series(of_it().map(|(x, figure)| Circle::new((x, figure.median()), 3, colour.filled())))?;
            chart.draw_series(of_it().map(|(x, figure)| {
                let (least, most) = figure.spread();
                PathElement::new([(x, least), (x, most)], colour.stroke_width(1))
            }))?;
        }
        Ok(())
    }
}

fn text(area: &Area, text: &str, place: (i32, i32), size: i32, colour: RGBColor) -> Drawn {
    area.draw(&Text::new(text.to_owned(), place, ("sans-serif", size).into_font().color(&colour)))?;
    Ok(())
}

/// A name as long as there is room for it.
fn cut(name: &str) -> String {
    const ROOM: usize = 30;
    if name.chars().count() <= ROOM { name.to_owned() } else { name.chars().take(ROOM - 1).chain(['…']).collect() }
}
