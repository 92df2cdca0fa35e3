//! What the crate reads from others: names, maps, tables, loads and routing tables, with whatever numbers stand in them.
//!
//! An answer says the same when it is written again, an error is one printable line, and neither takes more memory than
//! what was handed over explains, however much the numbers claim.

use expert_placement::{
    Batch, Error, ExpertMap, Loads, Options, Partition, Placement, Policy, Router, RoutingShape, Strategy, Topology,
    UNROUTED, rebalance,
};

use crate::input::Input;
use crate::{Outcome, law, report};

/// Heap bytes that reading may take at once, for each byte that is handed over, and those that it may take at all.
const BYTES_FOR_EACH: u64 = 64;
const BYTES_AT_ALL: u64 = 16 << 10;

/// Windows times layers, slots and ranks that are planned for.
const MOST_ROWS: usize = 256;
const MOST_RANKS: u32 = 64;
const MOST_SLOTS: usize = 64;

/// What is read, with all that is said of it.
#[derive(Debug)]
enum Case {
    Name(String),
    Map { reader: usize, map: Vec<i32>, experts: u32, shared: u32 },
    Table { layers: u32, experts: u32, ranks: Told, table: Vec<i32> },
    Loads { windows: u32, layers: u32, experts: u32, values: Vec<f64>, slots: usize, ranks: Told },
    Routing { sizes: [u32; 3], is_weighted: bool, table: Vec<i32>, ids: Vec<i64> },
}

/// What is said of the ranks.
#[derive(Debug)]
struct Told {
    ranks: u32,
    nodes: u32,
    each: Option<u32>,
    slots: Option<Vec<u32>>,
    speeds: Option<Vec<f64>>,
    active: Option<Vec<bool>>,
}

impl Told {
    fn read(input: &mut Input<'_>) -> Self {
        // Every rank has a number in memory, so that its number is not the thing to be bold with.
        let ranks = if input.below(8) == 0 { u32::from(input.u16()) } else { input.below(9) as u32 };
        let nodes = if input.below(8) == 0 { input.edge() } else { 1 };
        let each = (input.below(4) == 0).then(|| input.edge());
        let length = if input.below(8) == 0 { input.below(20) } else { ranks.min(20) as usize };
        let mut list =
            |chance: usize| (input.below(chance) == 0).then(|| (0..length).map(|_| input.edge()).collect::<Vec<_>>());
        let slots = list(4);
        let speeds = list(8).map(|speeds| speeds.into_iter().map(|bits| f32::from_bits(bits).into()).collect());
        let active = list(8).map(|active| active.into_iter().map(|number| number & 1 == 1).collect());
        Self { ranks, nodes, each, slots, speeds, active }
    }

    fn topology(&self) -> Result<Topology, Error> {
        let mut topology = Topology::new(self.ranks, self.nodes)?;
        if let Some(each) = self.each {
            topology = topology.with_slots_per_rank(each)?;
        }
        if let Some(slots) = &self.slots {
            topology = topology.with_slots(slots.clone())?;
        }
        if let Some(speeds) = &self.speeds {
            topology = topology.with_speeds(speeds.clone())?;
        }
        if let Some(active) = &self.active {
            topology = topology.with_active(active.clone())?;
        }
        Ok(topology)
    }
}

impl Case {
    fn read(input: &mut Input<'_>) -> Self {
        // Small numbers as often as others, so that some cases are legal.
        let number = |input: &mut Input<'_>| if input.is_set() { input.edge() } else { input.below(9) as u32 };
        let entry = |input: &mut Input<'_>| match input.byte() {
            byte @ 0..240 => i32::from(byte % 12) - 1,
            _ => i32::from_ne_bytes(input.edge().to_ne_bytes()),
        };
        match input.below(6) {
            0 => Self::Name(String::from_utf8_lossy(&input.list(200, Input::byte)).into_owned()),
            1 => {
                let (reader, experts, shared) = (input.below(5), number(input), number(input));
                Self::Map { reader, map: input.list(200, entry), experts, shared }
            }
            2 => {
                let (layers, experts, ranks) = (1 + number(input) % 5, number(input), Told::read(input));
                let layers = if input.below(8) == 0 { number(input) } else { layers };
                Self::Table { layers, experts, ranks, table: input.list(200, entry) }
            }
            3 => {
                let [windows, layers, experts] = [(); 3].map(|()| number(input));
                let (slots, ranks) = (input.below(MOST_SLOTS), Told::read(input));
                let value = |input: &mut Input<'_>| match input.byte() {
                    0..200 => input.load(),
                    _ => f64::from_bits(input.u64()),
                };
                Self::Loads { windows, layers, experts, values: input.list(60, value), slots, ranks }
            }
            4 => {
                let (sizes, is_weighted) = ([(); 3].map(|()| number(input)), input.is_set());
                let word = |input: &mut Input<'_>| if input.is_set() { input.u32() as i32 } else { entry(input) };
                let table = input.list(120, word);
                // The ids are what the table says.
                let ids = table.iter().map(|word| i64::from(*word)).collect();
                Self::Routing { sizes, is_weighted, table, ids }
            }
            _ => {
                let experts = number(input);
                Self::Map { reader: 5, map: input.list(200, entry), experts, shared: 0 }
            }
        }
    }

    /// Bytes that are handed over with the case, and that its ranks have in memory.
    fn size(&self) -> u64 {
        let size = match self {
            Self::Name(name) => name.len(),
            Self::Map { map, .. } => 4 * map.len(),
            Self::Table { ranks, table, .. } => 4 * table.len() + 16 * ranks.ranks as usize,
            Self::Loads { windows, layers, values, ranks, .. } => {
                // A plan and its report have so much for each layer, were it without experts.
                let rows = (*windows as usize).saturating_mul(*layers as usize).min(MOST_ROWS);
                8 * values.len() + 16 * ranks.ranks as usize + rows * 8 * MOST_SLOTS
            }
            Self::Routing { table, .. } => 12 * table.len(),
        };
        size as u64
    }
}

/// Checks one case.
pub fn run(bytes: &[u8]) -> Outcome {
    let case = Case::read(&mut Input::new(bytes));
    let mut read = Ok(Ok(()));
    let measured = allocation_counter::measure(|| {
        plant(&case);
        read = self::read(&case);
    });
    report(&case, is_bounded(&case, measured.bytes_max));
    match read {
        Err(error) => {
            report(&case, is_a_line(&error.to_string()));
            Outcome::Refused
        }
        Ok(checked) => {
            report(&case, checked);
            Outcome::Answered
        }
    }
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Case) {}

/// Memory for as many experts as a table of nothing claims.
#[cfg(feature = "planted")]
fn plant(case: &Case) {
    if let Case::Table { experts, table, .. } = case {
        let claimed = (*experts as usize).min(1 << 20);
        std::hint::black_box(if table.is_empty() { vec![0_u32; claimed] } else { vec![] });
    }
}

fn is_bounded(case: &Case, bytes: u64) -> Result<(), String> {
    let most = BYTES_AT_ALL + BYTES_FOR_EACH * case.size();
    if bytes <= most { Ok(()) } else { Err(format!("took {bytes} bytes, expected at most {most}")) }
}

/// An error is one line that a terminal shows as it is.
fn is_a_line(text: &str) -> Result<(), String> {
    law("an error is one printable line", !text.is_empty() && text.len() < 1000 && !text.chars().any(char::is_control))
}

/// Reads a case, and checks what was read.
fn read(case: &Case) -> Result<Result<(), String>, Error> {
    Ok(match case {
        Case::Name(name) => {
            let strategy = name.parse::<Strategy>();
            match name.parse::<Policy>() {
                Ok(policy) => law("a name is read to the letter", policy.name() == name && strategy.is_err()),
                Err(_) => law("a name is read to the letter", strategy?.name() == name),
            }
        }
        Case::Map { reader, map, experts, shared } => map_again(*reader, map, *experts, *shared)?,
        Case::Table { layers, experts, ranks, table } => {
            let placement = Placement::new(*experts, *layers as usize, ranks.topology()?, table.clone())?;
            let again = placement.physical_to_logical() == table && placement.num_experts() == *experts;
            law("a table that is read says the same", again && placement.digest().len() == 66)
        }
        Case::Loads { windows, layers, experts, values, slots, ranks } => {
            let [windows, layers, width] = [windows, layers, experts].map(|number| *number as usize);
            let loads = Loads::new(windows, layers, width, values.clone())?;
            let is_load = |value: &f64| value.is_finite() && *value >= 0.0;
            law("a load is finite and at least 0", values.iter().all(is_load)).and_then(|()| {
                let Ok(topology) = ranks.topology() else { return Ok(()) };
                planned(&loads, *slots, &topology)
            })
        }
        Case::Routing { sizes: [experts, slots, ranks], is_weighted, table, ids } => {
            let shape = RoutingShape::new(*experts, *slots, *ranks, *is_weighted)?;
            let router = Router::new(shape, table)?;
            let (mut slots, mut local) = (vec![7; ids.len()], vec![7; ids.len()]);
            router.route(ids, &Batch::new(1), &mut slots)?;
            router.localise(0, &slots, &mut local)?;
            let is_no_expert = |(id, slot): (&i64, &i32)| (0..i64::from(*experts)).contains(id) || *slot == UNROUTED;
            law("an id that is no expert has no slot", ids.iter().zip(&slots).all(is_no_expert))
        }
    })
}

/// A map that is read gives the same when it is written again.
fn map_again(reader: usize, map: &[i32], experts: u32, shared: u32) -> Result<Result<(), String>, Error> {
    let mut out = vec![i32::MIN; map.len()];
    match reader {
        0 => ExpertMap::from_index_map(map, experts)?.write_index_map(&mut out)?,
        1 => ExpertMap::from_index_map_with_shared(map, experts, shared)?
            .write_index_map_with_shared(shared, &mut out)?,
        2 => ExpertMap::from_index_map_with_sentinel(map, experts)?.write_index_map_with_sentinel(&mut out)?,
        3 => ExpertMap::from_mask(map, experts, shared)?.write_mask(shared, &mut out)?,
        4 => {
            // A rank of a partition, of which the map is cut or goes on.
            let partition = Partition::new(map.len() as u32, experts, Strategy::RoundRobin)?;
            partition.write_expert_map(shared, &mut out)?;
            let again = ExpertMap::from_index_map(&out, map.len() as u32)?;
            let same = again == ExpertMap::from_partition(&partition, shared)?;
            return Ok(law("a map that is written is read", same));
        }
        _ => ExpertMap::from_local_experts(map, experts)?.write_local_experts(&mut out)?,
    }
    Ok(law("a map that is read says the same", out == map))
}

/// A plan for loads of any size leaves no expert out, and its report is of numbers.
fn planned(loads: &Loads, slots: usize, topology: &Topology) -> Result<(), String> {
    let rows = loads.num_windows().saturating_mul(loads.num_layers());
    if rows > MOST_ROWS || topology.num_ranks() > MOST_RANKS {
        return Ok(());
    }
    for policy in Policy::ALL {
        let mut options = Options::default();
        options.policy = *policy;
        let Ok(plan) = rebalance(loads, slots as u64, topology, &options) else { continue };
        let is_number = |time: f64| time.is_finite() && time >= 0.0;
        let reports = plan.report(loads).map_err(|error| error.to_string())?;
        law(
            "times are finite",
            reports.iter().all(|report| is_number(report.largest) && is_number(report.lower_bound)),
        )?;
        let mut counts = vec![0; loads.num_layers() * loads.num_experts()];
        plan.write_replica_counts(&mut counts).map_err(|error| error.to_string())?;
        law("plan_leaves_no_expert_out", counts.iter().all(|count| *count > 0))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_what_is_only_claimed_is_refused() {
        let claim = Case::Map { reader: 0, map: vec![0, 1], experts: 1 << 30, shared: 0 };
        let measured = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 1 << 20])));
        assert_eq!(
            is_bounded(&claim, measured.bytes_max),
            Err(format!("took {} bytes, expected at most 16896", 1 << 20))
        );
        assert_eq!(is_bounded(&claim, 16896), Ok(()));
    }

    #[test]
    fn errors_that_are_no_line_are_refused() {
        assert!(is_a_line("").is_err() && is_a_line("a\nb").is_err() && is_a_line("\u{1b}[31m").is_err());
        assert!(is_a_line(&"long ".repeat(200)).is_err());
        assert_eq!(is_a_line("rank=8 is out of range, expected 0..8"), Ok(()));
    }

    #[test]
    fn readers_read_what_is_sound() {
        assert_eq!(map_again(3, &[0, 1, 1, 0], 2, 1), Ok(Ok(())));
        assert!(map_again(0, &[0, 2], 2, 0).is_err());
        let name = |text: &str| read(&Case::Name(text.to_owned()));
        assert_eq!([name("linear"), name("deepseek")], [Ok(Ok(())), Ok(Ok(()))]);
        assert!(name("Linear").is_err());
    }
}
