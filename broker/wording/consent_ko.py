"""The words of the consent's pages in Korean."""

from collections.abc import Mapping

from broker.wording.catalogue import ConsentWords, InterstitialWords, PageText

_NOTHING = "아무것도 연결되지 않았어요."
_START_AGAIN = "이용하던 서비스로 돌아가서 다시 연결해 주세요."
_CONTACT = "같은 문제가 계속되면 이 서비스의 운영자에게 알려 주세요."
_SET_UP = PageText(
    "이 서비스의 Google 설정이 올바르지 않아요",
    f"{_NOTHING} 잘못하신 것은 없어요.",
    "이 서비스의 운영자에게 알려 주세요. 운영자가 문제를 해결한 뒤에 이용하던 서비스로 돌아가서 "
    "다시 연결해 주세요.",
)
_GOOGLE_TROUBLE = PageText(
    "Google에 일시적인 문제가 있어요",
    f"{_NOTHING} Google이 요청을 처리하지 못했어요.",
    "몇 분 뒤에 다시 시도해 주세요.",
)
_STEP_MISSING = PageText(
    "Google에서 한 단계가 더 필요해요",
    f"{_NOTHING}",
    "다시 시도해서 Google 화면의 안내를 끝까지 따라 주세요.",
)

_MESSAGES: Mapping[str, PageText] = {
    "access_denied": PageText(
        "연결을 허용하지 않았어요",
        f"{_NOTHING} Google 계정은 그대로예요.",
        "마음이 바뀌면 다시 시도할 수 있어요. 허용하려 했는데 Google이 막았다면 아직 사용이 "
        "승인되지 않은 계정일 수 있으니, 이 서비스의 운영자에게 문의해 주세요.",
    ),
    "admin_policy_enforced": PageText(
        "소속 조직에서 이 연결을 허용하지 않아요",
        f"{_NOTHING} 조직의 Google Workspace 정책에 따라 차단되었어요.",
        "관리자에게 이 앱을 허용해 달라고 요청하거나, 다른 Google 계정으로 다시 시도해 주세요.",
    ),
    "org_internal": PageText(
        "한 조직의 계정만 연결할 수 있어요",
        f"{_NOTHING} 선택한 계정은 그 조직에 속해 있지 않아요.",
        "이 서비스를 운영하는 조직의 업무용 계정으로 다시 시도해 주세요. 이미 그렇게 했다면 "
        "운영자에게 계정을 추가해 달라고 요청해 주세요.",
    ),
    "disallowed_useragent": PageText(
        "이 창에서는 Google에 로그인할 수 없어요",
        f"{_NOTHING} 다른 앱 안에서 이 페이지가 열린 것 같아요.",
        "평소에 쓰는 Chrome, Safari, Firefox, Edge 같은 브라우저로 이용하던 서비스를 열어서 "
        "다시 연결해 주세요.",
    ),
    "login_required": _STEP_MISSING,
    "account_selection_required": _STEP_MISSING,
    "consent_required": _STEP_MISSING,
    "interaction_required": _STEP_MISSING,
    "invalid_client": _SET_UP,
    "deleted_client": _SET_UP,
    "disabled_client": _SET_UP,
    "unauthorized_client": _SET_UP,
    "redirect_uri_mismatch": _SET_UP,
    "invalid_request": _SET_UP,
    "invalid_scope": _SET_UP,
    "unsupported_response_type": _SET_UP,
    "client_refused": _SET_UP,
    "request_refused": _SET_UP,
    "server_error": _GOOGLE_TROUBLE,
    "temporarily_unavailable": _GOOGLE_TROUBLE,
    "internal_failure": _GOOGLE_TROUBLE,
    "google_unavailable": PageText(
        "지금 Google을 이용할 수 없어요",
        f"{_NOTHING} Google이 제때 응답하지 않았어요.",
        "몇 분 뒤에 다시 시도해 주세요.",
    ),
    "storage_unavailable": PageText(
        "지금은 완료할 수 없어요",
        "이 서비스의 일부를 일시적으로 이용할 수 없어요. 계정이 연결되지 않았을 수 있어요.",
        "몇 분 뒤에 다시 시도해 주세요.",
    ),
    "revocation_under_way": PageText(
        "Google에서 이전 연결을 아직 해제하고 있어요",
        f"{_NOTHING} 지금 연결하면 함께 해제돼요.",
        "30초쯤 뒤에 다시 시도해 주세요.",
    ),
    "invalid_grant": PageText(
        "시간이 너무 오래 걸렸어요",
        f"{_NOTHING} Google의 응답이 만료됐거나 이미 사용됐어요.",
        "다시 시도해 주세요.",
    ),
    "id_token_refused": PageText(
        "어떤 계정인지 확인하지 못했어요",
        f"{_NOTHING} Google의 응답이 검사를 모두 통과하지 못해서 폐기했어요.",
        f"다시 시도해 주세요. {_CONTACT}",
    ),
    "wrong_issuer": PageText(
        "Google에서 온 응답이 아니에요",
        f"{_NOTHING} 보낸 곳이 Google이 아니어서 응답을 폐기했어요.",
        f"{_START_AGAIN} {_CONTACT}",
    ),
    "no_code": PageText(
        "Google의 응답이 완전하지 않았어요",
        f"{_NOTHING}",
        f"다시 시도해 주세요. {_CONTACT}",
    ),
    "no_refresh_token": PageText(
        "Google이 지속적인 연결을 허용하지 않았어요",
        f"{_NOTHING} 지속적인 액세스 권한이 없으면 한 시간 안에 연결이 끊겨요.",
        "Google 계정의 “서드 파티 앱 및 서비스”에서 이 앱의 연결을 해제한 뒤 다시 시도해 주세요. "
        "그래도 안 되면 이 서비스의 운영자에게 알려 주세요.",
    ),
    "unknown_error": PageText(
        "Google이 계정을 연결하지 못했어요",
        f"{_NOTHING}",
        f"다시 시도해 주세요. {_CONTACT}",
    ),
    "link_not_ours": PageText(
        "이 링크는 쓸 수 없어요",
        "링크가 잘렸거나, 바뀌었거나, 다른 사람을 위해 만들어졌어요.",
        "복사한 링크라면 전체를 복사했는지 확인해 주세요. 아니라면 이용하던 서비스로 "
        "돌아가서 새 링크를 받아 주세요.",
    ),
    "link_expired": PageText(
        "링크가 만료됐어요",
        "안전을 위해 이런 링크는 몇 분 동안만 쓸 수 있어요.",
        _START_AGAIN,
    ),
    "link_used": PageText(
        "이미 사용한 링크예요",
        "링크는 한 번만 쓸 수 있어요.",
        "이 페이지는 닫아도 돼요. 다른 계정을 연결하거나 허용한 권한을 바꾸려면 이용하던 "
        "서비스로 돌아가 주세요.",
    ),
    "link_elsewhere": PageText(
        "다른 브라우저에서 이미 연 링크예요",
        "안전을 위해 링크를 처음 연 브라우저에서만 계속할 수 있어요.",
        "그 브라우저에서 계속하거나, 이용하던 서비스로 돌아가서 이 브라우저로 다시 연결해 주세요.",
    ),
    "link_withdrawn": PageText(
        "이 링크는 더 이상 쓸 수 없어요",
        f"이 링크를 만든 서비스의 권한이 바뀌었어요. {_NOTHING}",
        _START_AGAIN,
    ),
    "not_from_our_page": PageText(
        "본인이 진행한 요청인지 확인하지 못했어요",
        f"{_NOTHING} 이전 페이지를 너무 오래 열어 두었거나 다른 브라우저에서 열었거나, 브라우저가 "
        "쿠키를 차단했을 수 있어요.",
        f"이 사이트의 쿠키를 허용해 주세요. {_START_AGAIN}",
    ),
    "account_mismatch": PageText(
        "다른 Google 계정이에요",
        f"{_NOTHING} 이 연결은 정해진 한 계정만 쓸 수 있는데, 다른 계정을 선택했어요.",
        "다시 시도해서 요청된 계정을 선택해 주세요.",
    ),
    "address_not_verified": PageText(
        "Google이 이 계정의 이메일 주소를 확인하지 않았어요",
        f"{_NOTHING} 이 연결은 정해진 이메일 주소만 쓸 수 있는데, 그 주소가 선택한 계정의 것인지 "
        "확실하지 않아요.",
        "Google 계정에서 주소를 인증한 뒤 다시 시도하거나, 그 주소를 쓰는 다른 계정을 선택해 "
        "주세요.",
    ),
    "answer_unknown": PageText(
        "어느 연결에 대한 응답인지 알 수 없어요",
        "바뀐 것은 없어요. 방금 계정을 연결한 뒤 이 페이지를 새로 고쳤거나 뒤로 가기를 "
        "눌렀다면, 계정은 그대로 연결되어 있어요.",
        "아니라면 다른 브라우저나 탭에서 계속했거나, 너무 오래 기다렸거나, 브라우저가 쿠키를 "
        f"차단했을 수 있어요. {_START_AGAIN}",
    ),
    "malformed": PageText(
        "요청을 읽을 수 없어요",
        "주소나 보낸 내용의 일부가 너무 길거나, 빠졌거나, 두\N{NO-BREAK SPACE}번 들어 있어요.",
        _START_AGAIN,
    ),
    "404": PageText(
        "페이지를 찾을 수 없어요",
        "이 주소로 열 수 있는 페이지가 없어요.",
        "링크를 눌러서 왔다면 이용하던 서비스로 돌아가서 새 링크를 받아 주세요.",
    ),
    "405": PageText(
        "이 페이지는 열어 볼 수만 있어요",
        "여기로는 아무것도 보낼 수 없어요.",
        _START_AGAIN,
    ),
    "429": PageText(
        "요청이 너무 많아요",
        "사용 중인 네트워크에서 짧은 시간에 요청을 너무 많이 보냈어요. 바뀐 것은 없어요.",
        "1분쯤 뒤에 이 페이지를 다시 열어 주세요.",
    ),
    "500": PageText(
        "서비스에 문제가 생겼어요",
        "잘못하신 것은 없어요. 문제는 기록해 두었어요.",
        f"잠시 뒤에 다시 시도해 주세요. {_CONTACT}",
    ),
    "503": PageText(
        "지금은 처리할 수 없어요",
        "이 서비스의 일부를 일시적으로 이용할 수 없어요. 바뀐 것은 없어요.",
        "몇 분 뒤에 다시 시도해 주세요.",
    ),
}

KOREAN = ConsentWords(
    language="ko",
    site="Google 연결",
    try_again="다시 시도",
    reference="문의 번호",
    connected_title="Google 계정이 연결됐어요",
    connected_partly_title="일부 권한만으로 Google 계정이 연결됐어요",
    connected_lead="이 페이지는 닫아도 돼요.",
    account="계정",
    granted="이제 이 서비스가 할 수 있는 일",
    not_granted="허용하지 않은 일",
    not_granted_advice=(
        "이 권한이 필요한 기능은 쓸 수 없어요. 허용하려면 이용하던 서비스로 돌아가서 다시 "
        "연결해 주세요."
    ),
    withdraw="연결은 언제든지 Google 계정의 다음 메뉴에서 해제할 수 있어요:",
    withdraw_link="서드 파티 앱 및 서비스",
    interstitial=InterstitialWords(
        title="{service}에서 Google 계정을 쓰려고 해요",
        lead="다음 화면에서 Google이 권한을 허용할지 물어봐요. 거기서 허용하기 전에는 아무것도 "
        "연결되지 않아요.",
        again="이 페이지가 두 탭에서 열려 있었어요. 아래 버튼을 한 번 더 눌러 주세요. 아직 "
        "연결된 계정은 없어요.",
        asked="허용하면 할 수 있는 일",
        kept="전에 허용한 권한은 그대로 유지돼요",
        account="대상 계정",
        account_advice="다른 계정은 연결되지 않아요.",
        go_on="Google 계정으로 계속하기",
        next_step="Google 계정에서 언제든지 연결을 해제할 수 있어요.",
        warning="방금 {service}에서 직접 온 경우에만 계속해 주세요. 누군가 이 링크를 보내 "
        "주었다면 이 페이지를 닫아 주세요.",
        returns_to="완료되면 {service} 페이지({host})로 돌아가요.",
    ),
    messages=_MESSAGES,
)
