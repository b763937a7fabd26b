// Splits what a person typed into operands and options of one command.

import Glibc

/// The arguments of one command, checked against its table.
struct Arguments {
    private(set) var operands: [HostString] = []
    private(set) var values: [String: OptionValue] = [:]
    /// The words of all `-o` lists, in order.
    private(set) var mountWords: [HostString] = []
    /// Single-letter flags given, in order.
    private(set) var letters: Set<Character> = []

    /// `letters` are the single-letter flags allowed; "o" takes a value and is allowed only with `takesMountOptions`.
    init(
        _ arguments: [HostString], _ options: [CommandOption], letters allowed: String = "",
        takesMountOptions: Bool = false
    ) throws(CommandError) {
        var rest = arguments[...]
        var onlyOperands = false
        while let argument = rest.popFirst() {
            if onlyOperands || argument == "-" || !argument.hasPrefix("-") {
                operands.append(argument)
            } else if argument == "--" {
                onlyOperands = true
            } else if argument.hasPrefix("--") {
                try takeLong(argument.dropFirst(2), &rest, options)
            } else {
                try takeLetters(argument.dropFirst(1), &rest, allowed, takesMountOptions)
            }
        }
    }

    private mutating func takeLong(
        _ text: HostString, _ rest: inout ArraySlice<HostString>, _ options: [CommandOption]
    ) throws(CommandError) {
        let parts = text.split("=", atMost: 2)
        let name = parts[0].description
        guard let option = options.first(where: { $0.name == name }) else {
            throw CommandError("--\(name): unknown option")
        }
        var value = parts.count > 1 ? parts[1] : nil
        if case .flag = option.kind {} else if value == nil { value = rest.popFirst() }
        values[name] = try option.value(value, place: "--\(name)")
    }

    private mutating func takeLetters(
        _ text: HostString, _ rest: inout ArraySlice<HostString>, _ allowed: String, _ takesMountOptions: Bool
    ) throws(CommandError) {
        var text = text
        while let byte = text.bytes.first {
            let letter = HostString(bytes: [byte]).description
            text = text.dropFirst(1)
            if letter == "o" && takesMountOptions {
                guard let list = text.isEmpty ? rest.popFirst() : text else {
                    throw CommandError("-o: needs a list of options")
                }
                mountWords += Self.split(list)
                return
            }
            guard allowed.contains(letter) else { throw CommandError("-\(letter): unknown option") }
            letters.insert(Character(letter))
        }
    }

    /// Splits at commas; `\,` is a comma and `\\` a backslash.
    static func split(_ list: HostString) -> [HostString] {
        var words: [HostString] = []
        var word: [UInt8] = []
        var isEscaped = false
        for byte in list.bytes {
            if isEscaped {
                word.append(byte)
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else if byte == UInt8(ascii: ",") {
                words.append(HostString(bytes: word))
                word = []
            } else {
                word.append(byte)
            }
        }
        words.append(HostString(bytes: word))
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
    func operands(_ names: String...) throws(CommandError) -> [HostString] {
        if operands.count < names.count { throw CommandError("\(names[operands.count]) is missing") }
        if operands.count > names.count { throw CommandError("'\(operands[names.count])': one argument too many") }
        if let position = operands.firstIndex(of: "") { throw CommandError("\(names[position]) is empty") }
        return operands
    }
}
