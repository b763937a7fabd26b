// Splits what a person typed into operands and options of one command.

import Glibc

/// The arguments of one command, checked against its table.
struct Arguments {
    private(set) var operands: [String] = []
    private(set) var values: [String: OptionValue] = [:]
    /// The words of all `-o` lists, in order.
    private(set) var mountWords: [String] = []
    /// Single-letter flags given, in order.
    private(set) var letters: Set<Character> = []

    /// `letters` are the single-letter flags allowed; "o" takes a value and is allowed only with `takesMountOptions`.
    init(
        _ arguments: [String], _ options: [CommandOption], letters allowed: String = "", takesMountOptions: Bool = false
    ) throws(CommandError) {
        var rest = arguments[...]
        var onlyOperands = false
        while let argument = rest.popFirst() {
            if onlyOperands || argument == "-" || !argument.hasPrefix("-") {
                operands.append(argument)
            } else if argument == "--" {
                onlyOperands = true
            } else if argument.hasPrefix("--") {
                try takeLong(String(argument.dropFirst(2)), &rest, options)
            } else {
                try takeLetters(argument.dropFirst(), &rest, allowed, takesMountOptions)
            }
        }
    }

    private mutating func takeLong(
        _ text: String, _ rest: inout ArraySlice<String>, _ options: [CommandOption]
    ) throws(CommandError) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        guard let option = options.first(where: { $0.name == name }) else {
            throw CommandError("--\(name): unknown option")
        }
        var value = parts.count > 1 ? String(parts[1]) : nil
        if case .flag = option.kind {} else if value == nil { value = rest.popFirst() }
        values[name] = try option.value(value, place: "--\(name)")
    }

    private mutating func takeLetters(
        _ text: Substring, _ rest: inout ArraySlice<String>, _ allowed: String, _ takesMountOptions: Bool
    ) throws(CommandError) {
        var text = text
        while let letter = text.popFirst() {
            if letter == "o" && takesMountOptions {
                guard let list = text.isEmpty ? rest.popFirst() : String(text) else {
                    throw CommandError("-o: needs a list of options")
                }
                mountWords += Self.split(list)
                return
            }
            guard allowed.contains(letter) else { throw CommandError("-\(letter): unknown option") }
            letters.insert(letter)
        }
    }

    /// Splits at commas; `\,` is a comma and `\\` a backslash.
    static func split(_ list: String) -> [String] {
        var words: [String] = []
        var word = ""
        var isEscaped = false
        for character in list {
            if isEscaped {
                word.append(character)
                isEscaped = false
            } else if character == "\\" {
                isEscaped = true
            } else if character == "," {
                words.append(word)
                word = ""
            } else {
                word.append(character)
            }
        }
        words.append(word)
        return words.filter { !$0.isEmpty }
    }

    func has(_ name: String) -> Bool {
        if case .flag(true)? = values[name] { return true }
        return false
    }

    func size(_ name: String) -> UInt64? {
        if case .size(let value)? = values[name] { return value }
        return nil
    }

    func number(_ name: String) -> Int? {
        if case .number(let value)? = values[name] { return value }
        return nil
    }

    /// The operands, which must be as many as there are names.
    func operands(_ names: String...) throws(CommandError) -> [String] {
        if operands.count < names.count { throw CommandError("\(names[operands.count]) is missing") }
        if operands.count > names.count { throw CommandError("'\(operands[names.count])': one argument too many") }
        if let position = operands.firstIndex(of: "") { throw CommandError("\(names[position]) is empty") }
        return operands
    }
}
