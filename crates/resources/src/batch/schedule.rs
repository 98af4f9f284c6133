//! Cron schedules, with the error texts of `robfig/cron`.

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: MONTHS },
    Bounds { min: 0, max: 6, names: DAYS },
];

/// What is wrong with a schedule.
pub fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    let text = match text.strip_prefix("TZ=").or(text.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest).trim(),
        None => text,
    };
    if let Some(word) = text.strip_prefix('@') {
        return descriptor(text, word);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let list = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{list}]", fields.len()));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(field, bounds)| list(field, bounds))
}

fn descriptor(text: &str, word: &str) -> Result<(), String> {
    let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
    match word.strip_prefix("every ") {
        Some(duration) if duration.starts_with(|c: char| c.is_ascii_digit()) && duration.ends_with(['s', 'm', 'h']) => {
            Ok(())
        }
        Some(duration) => Err(format!("failed to parse duration {text}: time: invalid duration {duration:?}")),
        None if known.contains(&word) => Ok(()),
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

fn list(field: &str, bounds: &Bounds) -> Result<(), String> {
    field.split(',').filter(|part| !part.is_empty()).try_for_each(|part| range(part, bounds))
}

fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let single = ends.len() == 1;
    let (start, mut end);
    if ends[0] == "*" || ends[0] == "?" {
        (start, end) = (bounds.min, bounds.max);
    } else {
        start = number(ends[0], bounds)?;
        end = match ends.len() {
            1 => start,
            2 => number(ends[1], bounds)?,
            _ => return Err(format!("too many hyphens: {text}")),
        };
    }
    let step = match parts.len() {
        1 => 1,
        2 => plain(parts[1])?,
        _ => return Err(format!("too many slashes: {text}")),
    };
    if parts.len() == 2 && single {
        end = bounds.max;
    }
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    match bounds.names.iter().position(|name| *name == text.to_lowercase()) {
        Some(index) => Ok(index as u32 + bounds.min),
        None => plain(text),
    }
}

fn plain(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for (text, want) in [
            ("*/5 0-6 1,15 jan-mar mon", Ok(())),
            ("@hourly", Ok(())),
            ("@every 5m", Ok(())),
            ("61 * * * *", Err("end of range (61) above maximum (59): 61")),
            ("* * * *", Err("expected exactly 5 fields, found 4: [* * * *]")),
            ("@x", Err("unrecognized descriptor: @x")),
            ("a * * * *", Err("failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax")),
        ] {
            assert_eq!(check(text), want.map_err(str::to_owned), "{text}");
        }
    }
}
