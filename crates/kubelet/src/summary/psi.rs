//! Pressure in the summary's form.

use cri::{Pressure, Stalls};
use serde::Serialize;

/// `PSIStats`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct PsiStats {
    pub full: PsiData,
    pub some: PsiData,
}

/// `PSIData`; `total` in the kernel's microseconds, as upstream gives it whatever its documentation says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct PsiData {
    pub total: u64,
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

impl From<Pressure> for PsiStats {
    fn from(pressure: Pressure) -> Self {
        Self { full: pressure.full.into(), some: pressure.some.into() }
    }
}

impl From<Stalls> for PsiData {
    fn from(stalls: Stalls) -> Self {
        let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
        let (avg10, avg60, avg300) = (percent(stalls.avg10), percent(stalls.avg60), percent(stalls.avg300));
        Self { total: stalls.total, avg10, avg60, avg300 }
    }
}
