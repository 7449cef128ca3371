//! The packages that are the same to the byte wherever they are built.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{deb, packing::Packing, rpm, sbom};

pub(super) struct Packages {
    pub(super) debian: PathBuf,
    pub(super) rpm: PathBuf,
    pub(super) sbom: PathBuf,
}

impl Packages {
    pub(super) fn build(packing: &Packing<'_>) -> Result<Self> {
        let release = packing.release(&packing.sources.join("target"));
        fs::create_dir_all(&release)?;
        let program = packing.release(packing.target).join("acctd");
        fs::copy(program, release.join("acctd"))?;
        let beside = packing.place.join(sbom::NAME);
        fs::copy(sbom::write(packing, &release)?, &beside)?;
        Ok(Self {
            debian: deb::package(packing)?,
            rpm: rpm::package(packing)?,
            sbom: beside,
        })
    }

    pub(super) fn files(&self) -> [&Path; 3] {
        [&self.debian, &self.rpm, &self.sbom]
    }
}
