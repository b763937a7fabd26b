// One table per command says what options there are; parsing, bounds, environment and help all come from it.
//
// Command/ is the topmost folder: what a person types and what the process does around a mount (validation, lock, daemon,
// signals). It may name every other folder; nothing names it but the executable.

import Glibc

/// A word a person may give: `-o name=value`, or `--name value` of a command.
struct CommandOption: Sendable {
    enum Kind: Sendable {
        /// On when named; `=on` and `=off` are understood too.
        case flag
        case choice([String])
        case number(ClosedRange<Int>)
        /// Bytes, with K, M, G or T for powers of 1024.
        case size(ClosedRange<UInt64>)
        /// Any text. The word stands for it in the help.
        case text(String)
        /// A word of mount(8) and fstab(5), taken with or without a value. Not in the environment.
        case generic
    }

    let name: String
    let kind: Kind
    /// Shown in the help; empty for flags that are off.
    let defaultText: String
    let help: String

    init(_ name: String, _ kind: Kind, _ defaultText: String = "", _ help: String) {
        self.name = name
        self.kind = kind
        self.defaultText = defaultText
        self.help = help
    }

    /// How a person writes it: "queue_depth=1..4096".
    var synopsis: String {
        switch kind {
        case .flag, .generic: return name
        case .choice(let words): return name + "=" + words.joined(separator: "|")
        case .number(let range): return "\(name)=\(range.lowerBound)..\(range.upperBound)"
        case .size: return name + "=SIZE"
        case .text(let word): return name + "=" + word
        }
    }

    /// The environment variable that sets it, such as TREERING_QUEUE_DEPTH. Nil for words of mount(8).
    var environmentName: String? {
        if case .generic = kind { return nil }
        return "TREERING_" + name.uppercased().replacing("-", with: "_")
    }

    /// A line of help for each option.
    static func help(_ options: [CommandOption], prefix: String = "") -> String {
        let named = options.filter { option in
            if case .generic = option.kind { return false }
            return true
        }
        let width = min(38, named.map { prefix.count + $0.synopsis.count }.max() ?? 0)
        return named.map { option in
            let left = prefix + option.synopsis
            let gap =
                left.count > width
                ? "\n" + String(repeating: " ", count: width + 4)
                : String(repeating: " ", count: width - left.count + 2)
            return "  " + left + gap + option.help + (option.defaultText.isEmpty ? "" : " (\(option.defaultText))")
        }.joined(separator: "\n")
    }
}

/// A value that was checked against its option.
enum OptionValue: Sendable {
    case flag(Bool)
    case number(Int)
    case size(UInt64)
    /// One of the words of a choice, or of mount(8).
    case word(String)
    case text(HostString)
}

/// Why a command did not do what was asked: a message for a person, and the exit code.
struct CommandError: Error, Sendable {
    let message: String
    let exitCode: Int32

    init(_ message: String, exitCode: Int32 = 1) {
        self.message = message
        self.exitCode = exitCode
    }
}

extension CommandOption {
    /// Checks a typed value. `place` names where it was typed ("-o", "TREERING_ENGINE"), for messages.
    func value(_ typed: HostString?, place: String) throws(CommandError) -> OptionValue {
        // A value that is not valid UTF-8 equals no word or number, even after it was made printable.
        let text = typed?.description
        switch kind {
        case .generic: return .word(text ?? "")
        case .flag:
            switch text {
            case nil, "on", "yes", "true", "1": return .flag(true)
            case "off", "no", "false", "0": return .flag(false)
            case .some(let text): throw CommandError("\(place): \(name)=\(text): is on or off")
            }
        case .choice(let words):
            guard let text else { throw CommandError("\(place): \(name): needs a value: \(synopsis)") }
            if words.contains(text) { return .word(text) }
            // A switch also accepts yes and no.
            if words.contains("on"), text == "yes" || text == "true" { return .word("on") }
            if words.contains("off"), text == "no" || text == "false" { return .word("off") }
            throw CommandError("\(place): \(name)=\(text): is one of \(words.joined(separator: ", "))")
        case .number(let range):
            guard let text else { throw CommandError("\(place): \(name): needs a value: \(synopsis)") }
            guard let number = Int(text), range.contains(number) else {
                throw CommandError(
                    "\(place): \(name)=\(text): is a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return .number(number)
        case .size(let range):
            guard let text else { throw CommandError("\(place): \(name): needs a value: \(synopsis)") }
            guard let byteCount = ByteSize.parse(text), range.contains(byteCount) else {
                let bounds = "\(ByteSize.text(range.lowerBound)) to \(ByteSize.text(range.upperBound))"
                throw CommandError("\(place): \(name)=\(text): is a size from \(bounds), such as 512M or 2G")
            }
            return .size(byteCount)
        case .text:
            guard let typed else { throw CommandError("\(place): \(name): needs a value: \(synopsis)") }
            return .text(typed)
        }
    }
}

/// Sizes as people write them.
enum ByteSize {
    private static let units: [(letter: Character, shift: UInt64)] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)]

    /// "64M", "1g", "4096", "16MiB"; nil for anything else.
    static func parse(_ text: String) -> UInt64? {
        var digits = text.uppercased()
        for suffix in ["IB", "B"] where digits.hasSuffix(suffix) && digits.count > suffix.count {
            digits.removeLast(suffix.count)
            break
        }
        var shift: UInt64 = 0
        if let last = digits.last, let unit = units.first(where: { $0.letter == last }) {
            shift = unit.shift
            digits.removeLast()
        }
        guard let number = UInt64(digits), number <= UInt64.max >> shift else { return nil }
        return number << shift
    }

    /// The shortest exact form.
    static func text(_ byteCount: UInt64) -> String {
        for unit in units.reversed() where byteCount > 0 && byteCount & (1 << unit.shift - 1) == 0 {
            return "\(byteCount >> unit.shift)\(unit.letter)"
        }
        return String(byteCount)
    }
}
