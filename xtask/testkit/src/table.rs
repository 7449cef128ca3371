//! Text tables whose columns line up.

/// Formats rows below a header. Columns of numbers are aligned to the right.
pub fn format(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns: Vec<Column> = header
        .iter()
        .enumerate()
        .map(|(i, title)| Column::measure(title, rows.iter().filter_map(|row| row.get(i))))
        .collect();
    let header = header.iter().map(|&title| title.to_owned()).collect();
    std::iter::once(&header)
        .chain(rows)
        .map(|row: &Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&columns).map(Column::pad).collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        })
        .collect()
}

struct Column {
    width: usize,
    numeric: bool,
}

impl Column {
    fn measure<'a>(title: &str, cells: impl Iterator<Item = &'a String>) -> Self {
        let mut column = Self {
            width: title.chars().count(),
            numeric: true,
        };
        for cell in cells {
            column.width = column.width.max(cell.chars().count());
            column.numeric &= cell.bytes().all(|b| b.is_ascii_digit());
        }
        column
    }

    fn pad((cell, column): (&String, &Self)) -> String {
        let width = column.width;
        if column.numeric {
            format!("{cell:>width$}")
        } else {
            format!("{cell:<width$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let rows = [["a", "10", "x"], ["bcd", "9", ""]].map(|row| row.map(String::from).to_vec());
        let table = format(&["name", "n", "z"], &rows);
        assert_eq!(table, "name   n  z\na     10  x\nbcd    9\n");
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(format(&["Time", "IP"], &[]), "Time  IP\n");
    }
}
